"""Few cells and a large collection: what pre-training a relation network adds, on any data (Park and others, 2021).

Every arm is a network for each seed: how its weights begin, how its encoder is constrained, and the learning rate that
it is fine-tuned with::

    found = transfer(source, few, test, StudyConfig(), seeds=range(10))
    differences(found.results)["all", 0.02]["real_scratch"]

* :mod:`shared.studies.tmp.data_sets`: the pairs of source and target, on the genes that they share.
* :mod:`shared.studies.tmp.arms`: networks pre-trained, fine-tuned and evaluated.
* :mod:`shared.studies.tmp.comparisons`: every arm, heads on the genes, and the differences between them.
* :mod:`shared.studies.tmp.diagnostics`: statistics of a batch, embeddings, unknown classes, calibration.
* :mod:`shared.studies.tmp.protocol`: the published protocol, run by parts.
"""

from shared.studies.tmp.arms import StudyConfig, episode_sampler, evaluate, finetune, new_networks, pretrain
from shared.studies.tmp.comparisons import (
    CLAMPS,
    DIFFERENCES,
    INITS,
    RATES,
    Arm,
    Networks,
    differences,
    finetuned,
    heads,
    interval,
    of_each,
    pooled,
    sizes,
    spread,
    summary,
    transfer,
    untuned,
)
from shared.studies.tmp.data_sets import FILES, Pair, hold_out_classes, mirrored, on_same_genes, pairs
from shared.studies.tmp.diagnostics import (
    batch_statistics,
    calibration,
    feature_correlations,
    one_type_loss,
    open_set,
)

__all__ = [
    "CLAMPS",
    "DIFFERENCES",
    "FILES",
    "INITS",
    "RATES",
    "Arm",
    "Networks",
    "Pair",
    "StudyConfig",
    "batch_statistics",
    "calibration",
    "differences",
    "episode_sampler",
    "evaluate",
    "feature_correlations",
    "finetune",
    "finetuned",
    "heads",
    "hold_out_classes",
    "interval",
    "mirrored",
    "new_networks",
    "of_each",
    "on_same_genes",
    "one_type_loss",
    "open_set",
    "pairs",
    "pooled",
    "pretrain",
    "sizes",
    "spread",
    "summary",
    "transfer",
    "untuned",
]  # fmt: skip
