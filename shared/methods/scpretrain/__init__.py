"""Pre-training on pseudo-labels from many unlabelled data sets, then a small classifier for a new one.

After Zhang and others, *scPretrain: multi-task self-supervised learning for cell-type classification* (Bioinformatics,
2022). Each data set is clustered by k-means at three granularities (:mod:`~shared.methods.scpretrain.pseudo_labels`),
and one linear encoder, genes to an embedding of 200 numbers, learns to name the clusters of all of them, with a head
of its own for each (:mod:`~shared.methods.scpretrain.network`). Then the cells are clustered again, by their embedding,
new heads are put on, and so on, round by round (:mod:`~shared.methods.scpretrain.rounds`). On a new data set the
encoder's weights of the genes it shares are the start of a small classifier, which is fine-tuned on a few labelled
cells (:mod:`~shared.methods.scpretrain.finetuning`). :class:`ScPretrain` is all of it
(:mod:`~shared.methods.scpretrain.estimator`).

Paper and code (the authors' of December 2021) differ in places. Each has an option here, and what the two do is said
there. Counts come in sparse and stay sparse; networks read log(1 + count), not scaled by depth, as in paper and code.
"""

from shared.methods.scpretrain.estimator import ScPretrain
from shared.methods.scpretrain.finetuning import Split, finetune, paper_split
from shared.methods.scpretrain.network import CellTypeNet, MultiTaskNet, celltype_step, cluster_step, transplant
from shared.methods.scpretrain.pseudo_labels import PseudoLabeller, PseudoLabels, cluster_numbers, logged
from shared.methods.scpretrain.rounds import Pretraining, batch_rows

__all__ = [
    "CellTypeNet",
    "MultiTaskNet",
    "Pretraining",
    "PseudoLabeller",
    "PseudoLabels",
    "ScPretrain",
    "Split",
    "batch_rows",
    "celltype_step",
    "cluster_numbers",
    "cluster_step",
    "finetune",
    "logged",
    "paper_split",
    "transplant",
]
