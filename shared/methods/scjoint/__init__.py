"""scJoint: types of RNA cells for ATAC cells, in one linear embedding.

After Lin and others, *scJoint integrates atlas-scale single-cell RNA-seq and ATAC-seq data using transfer learning*
(Nature Biotechnology, 2022). Stage 1 trains a linear embedding that tells the types of RNA cells apart and brings ATAC
cells near them (:mod:`~shared.methods.scjoint.losses`, :mod:`~shared.methods.scjoint.network`). Stage 2 gives each ATAC
cell the type that most of its nearest RNA cells have (:mod:`~shared.methods.scjoint.voting`). Stage 3 trains again with
these types as if they were known, and votes again. :class:`ScJoint` is all of it
(:mod:`~shared.methods.scjoint.estimator`).

Before all of it, :func:`gene_activity` puts peaks of chromatin on the axis of genes
(:mod:`~shared.methods.scjoint.activity`).

Of the paper its abstract could be read, of its method what the authors' code (2023) does.
"""

from shared.methods.scjoint.activity import gene_activity, overlaps
from shared.methods.scjoint.estimator import PUBLISHED, ScJoint
from shared.methods.scjoint.losses import centre_loss, reduction_loss, similarity_loss
from shared.methods.scjoint.network import JointBatches, JointInput, JointNetwork, binarized, scjoint_step, types_loss
from shared.methods.scjoint.voting import (
    nearest_labelled,
    published_confidence,
    published_reference,
    unit_length,
    vote_shares,
)

__all__ = [
    "PUBLISHED",
    "JointBatches",
    "JointInput",
    "JointNetwork",
    "ScJoint",
    "binarized",
    "centre_loss",
    "gene_activity",
    "nearest_labelled",
    "overlaps",
    "published_confidence",
    "published_reference",
    "reduction_loss",
    "scjoint_step",
    "similarity_loss",
    "types_loss",
    "unit_length",
    "vote_shares",
]
