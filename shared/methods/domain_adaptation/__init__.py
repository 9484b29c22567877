"""Domain adaptation: labelled cells of a source, unlabelled cells of a target, and a classifier for the target.

Shallow methods are transformers: centring (:mod:`~shared.methods.domain_adaptation.centring`), the covariance
(:mod:`~shared.methods.domain_adaptation.correlation`), principal axes
(:mod:`~shared.methods.domain_adaptation.subspace`) and transport
(:mod:`~shared.methods.domain_adaptation.transport`); :class:`AdaptedClassifier` puts any classifier behind one of them.
Deep methods are one network trained by one loop, and differ in their step: deep CORAL
(:mod:`~shared.methods.domain_adaptation.deep_coral`), the maximum mean discrepancy
(:mod:`~shared.methods.domain_adaptation.deep_mmd`), a discriminator behind a reversed gradient
(:mod:`~shared.methods.domain_adaptation.dann`), and one that sees the predicted classes too
(:mod:`~shared.methods.domain_adaptation.cdan`).

All of them match distributions, and that is right only where the shares of the classes are equal. Why a match alone
cannot know which cluster is which: :mod:`~shared.methods.domain_adaptation.label_switching`. How to choose without
target labels, and what each way costs: :mod:`~shared.methods.domain_adaptation.selection`.
"""

from shared.methods.domain_adaptation.adapter import AdaptedClassifier, DomainAdapter
from shared.methods.domain_adaptation.cdan import CDAN, cdan_step, multilinear
from shared.methods.domain_adaptation.centring import CenterDomains
from shared.methods.domain_adaptation.correlation import CORAL, recoloring
from shared.methods.domain_adaptation.dann import DANN, AdversarialNetwork, RampedBatches, dann_step
from shared.methods.domain_adaptation.deep_coral import DeepCORAL, coral, coral_step
from shared.methods.domain_adaptation.deep_mmd import DeepMMD, mmd_step
from shared.methods.domain_adaptation.label_switching import SeparateEncoders, separate_encoders, separate_step
from shared.methods.domain_adaptation.network import DomainNetwork, EncoderHead, source_step
from shared.methods.domain_adaptation.selection import (
    deep_embedded_validation,
    density_ratio,
    importance_weighted,
    prediction_entropy,
    target_risks,
)
from shared.methods.domain_adaptation.subspace import SubspaceAlignment
from shared.methods.domain_adaptation.transport import TransportMap, cost_matrix, exact_plan, sinkhorn

__all__ = [
    "CDAN",
    "CORAL",
    "DANN",
    "AdaptedClassifier",
    "AdversarialNetwork",
    "CenterDomains",
    "DeepCORAL",
    "DeepMMD",
    "DomainAdapter",
    "DomainNetwork",
    "EncoderHead",
    "RampedBatches",
    "SeparateEncoders",
    "SubspaceAlignment",
    "TransportMap",
    "cdan_step",
    "coral",
    "coral_step",
    "cost_matrix",
    "dann_step",
    "deep_embedded_validation",
    "density_ratio",
    "exact_plan",
    "importance_weighted",
    "mmd_step",
    "multilinear",
    "prediction_entropy",
    "recoloring",
    "separate_encoders",
    "separate_step",
    "sinkhorn",
    "source_step",
    "target_risks",
]
