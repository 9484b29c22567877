"""Guided transfer learning: scouts find out which weights of a pre-trained network need to move, and a guide lets them.

After Li and others, *Using guided transfer learning to predispose AI agent to learn efficiently from small
RNA-sequencing datasets* (2023), and Nikolić, Andrić and Nikolić, *Guided transfer learning: helping deep networks when
learning gets tough* (2023). Copies of a pre-trained network are fine-tuned on easy tasks, pairs of clusters of
unlabelled cells, and the mean squared change of each weight is kept (:mod:`~shared.methods.guided_transfer.scouts`).
Brought to [0, 1] it multiplies what fine-tuning on few labelled cells does to each weight
(:mod:`~shared.methods.guided_transfer.guide`, :mod:`~shared.methods.guided_transfer.steps`). Other ways to spare
pre-trained weights stand beside it (:mod:`~shared.methods.guided_transfer.strategies`; for one of them
:mod:`~shared.methods.guided_transfer.fisher`), and all of them train any torch module
(:mod:`~shared.methods.guided_transfer.finetuning`, :mod:`~shared.methods.guided_transfer.transfer`).

Paper, the authors' code and their library differ in places. Each has an option here, and what they do is said there.
The first matters most: the paper multiplies updates, the code gradients, which Adam makes nearly nothing of
(:class:`GuidedSteps`).
"""

from shared.methods.guided_transfer.finetuning import classify_step, finetune
from shared.methods.guided_transfer.fisher import diagonal_fisher, sampled_loss
from shared.methods.guided_transfer.guide import Guide
from shared.methods.guided_transfer.scouts import Scouts, cluster, cluster_pairs, send_scouts
from shared.methods.guided_transfer.steps import GuidedSteps
from shared.methods.guided_transfer.strategies import (
    EWC,
    L2SP,
    BitFit,
    Frozen,
    Full,
    Guided,
    LoRA,
    candidates,
)
from shared.methods.guided_transfer.transfer import GuidedTransfer

__all__ = [
    "EWC",
    "L2SP",
    "BitFit",
    "Frozen",
    "Full",
    "Guide",
    "Guided",
    "GuidedSteps",
    "GuidedTransfer",
    "LoRA",
    "Scouts",
    "candidates",
    "classify_step",
    "cluster",
    "cluster_pairs",
    "diagonal_fisher",
    "finetune",
    "sampled_loss",
    "send_scouts",
]
