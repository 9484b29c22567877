"""How a result is judged: splits that refuse leaks, metrics, intervals, paired tests, episodes, the baseline ladder."""

from shared.evaluate.episode_intervals import few_shot_interval, few_shot_intervals
from shared.evaluate.episodes import FewShot, few_shot_accuracy, unknown_curve
from shared.evaluate.intervals import (
    Interval,
    Paired,
    bootstrap,
    clopper_pearson,
    mcnemar_exact,
    over_seeds,
    paired_test,
    wilson,
)
from shared.evaluate.ladder import at, ladder, learning_curve, readable
from shared.evaluate.metrics import (
    accuracy,
    ari,
    auroc,
    average_precision,
    balanced_accuracy,
    cohen_kappa,
    ece,
    macro_f1,
    macro_ovr,
    nmi,
    reliability,
    score,
    silhouette,
    trapezoid_auprc,
)
from shared.evaluate.mixing import (
    batch_entropy,
    batch_silhouette,
    divergence,
    graph_connectivity,
    integration_scores,
    lisi,
    specific_entropy,
)
from shared.evaluate.splits import (
    LeakError,
    check_disjoint,
    few_shot,
    grouped_folds,
    grouped_split,
    holdout,
    matched,
)

__all__ = [
    "FewShot", "Interval", "LeakError", "Paired", "accuracy", "ari", "at", "auroc", "average_precision",
    "balanced_accuracy", "batch_entropy", "batch_silhouette", "bootstrap", "check_disjoint", "clopper_pearson",
    "cohen_kappa", "divergence", "ece", "few_shot", "few_shot_accuracy", "few_shot_interval", "few_shot_intervals",
    "graph_connectivity", "grouped_folds", "grouped_split", "holdout", "integration_scores", "ladder",
    "learning_curve", "lisi", "macro_f1", "macro_ovr", "matched", "mcnemar_exact", "nmi", "over_seeds", "paired_test",
    "readable", "reliability", "score", "silhouette", "specific_entropy", "trapezoid_auprc", "unknown_curve",
    "wilson",
]  # fmt: skip
