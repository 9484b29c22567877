"""Few cells and a large collection: the arms of the relation network's paper, on any data (Park and others, 2021).

Each arm is one network: how its weights start, whether they are kept non-negative, and how many cells of each class it
is fine-tuned on::

    genes, lines, cells = on_same_genes((source, "subtype"), {"run 1": (a, "cell_type"), "run 2": (b, "cell_type")})
    results = transfer(lines, cells["run 1"], cells["run 2"], StudyConfig(), seeds=range(5))
    intervals(results)

A study is ``(X, y)``: float32 cells × genes, each profile scaled to [0, 1], and one label a cell.

* :mod:`shared.studies.tmp.data_sets`: studies on the genes that they share, and classes held out.
* :mod:`shared.studies.tmp.arms`: one arm, pre-trained, fine-tuned and evaluated.
* :mod:`shared.studies.tmp.comparisons`: arms, seeds and studies, on the harness of :mod:`shared.studies`.
* :mod:`shared.studies.tmp.diagnostics`: unknown classes, calibration, and embeddings that are all alike.
* :mod:`shared.studies.tmp.reported`: what the paper reports.
"""

from shared.studies.tmp.arms import (
    Arm,
    StudyConfig,
    evaluate,
    evaluation_sampler,
    finetune,
    initial_network,
    new_network,
)
from shared.studies.tmp.comparisons import (
    ARMS,
    WORDS,
    cross_studies,
    finetune_arms,
    heads,
    intervals,
    label_shift,
    pretrain,
    results,
    select_lr,
    tissues_and_tumours,
    transfer,
    types_by_cells,
)
from shared.studies.tmp.data_sets import hold_out_classes, on_same_genes, published
from shared.studies.tmp.diagnostics import calibration, feature_correlations, open_set
from shared.studies.tmp.reported import PAPER_ARMS, PAPER_CURVES, PAPER_NUMBERS, PAPER_TYPES

__all__ = [
    "ARMS", "PAPER_ARMS", "PAPER_CURVES", "PAPER_NUMBERS", "PAPER_TYPES", "WORDS", "Arm", "StudyConfig", "calibration",
    "cross_studies", "evaluate", "evaluation_sampler", "feature_correlations", "finetune", "finetune_arms", "heads",
    "hold_out_classes", "initial_network", "intervals", "label_shift", "new_network", "on_same_genes", "open_set",
    "pretrain", "published", "results", "select_lr", "tissues_and_tumours", "transfer", "types_by_cells",
]  # fmt: skip
