"""What pre-training on clusters is worth, beside baselines on the same cells (Zhang and others, 2022).

* :mod:`shared.studies.scpretrain.encoders`: one encoder, one labelled data set, one seed.
* :mod:`shared.studies.scpretrain.left_out`: labelled data sets, each left out in turn.
"""

from shared.studies.scpretrain.encoders import (
    agreement,
    as_baseline,
    class_scores,
    correlation,
    draw,
    embedding_scores,
    embeddings,
    hard_label_areas,
    label_curve,
    mean_accuracy,
    network_scores,
    obtainable,
    other_heads,
    own_genes,
    pretrain,
    pretrain_one,
    published_protocol,
    scores,
    scratch,
    stability,
    wrong_genes,
)
from shared.studies.scpretrain.left_out import AllEpochs, OnEmbedding, fold_arms, labelled_sets, sweep, widespread

__all__ = [
    "AllEpochs",
    "OnEmbedding",
    "agreement",
    "as_baseline",
    "class_scores",
    "correlation",
    "draw",
    "embedding_scores",
    "embeddings",
    "fold_arms",
    "hard_label_areas",
    "label_curve",
    "labelled_sets",
    "mean_accuracy",
    "network_scores",
    "obtainable",
    "other_heads",
    "own_genes",
    "pretrain",
    "pretrain_one",
    "published_protocol",
    "scores",
    "scratch",
    "stability",
    "sweep",
    "widespread",
    "wrong_genes",
]  # fmt: skip
