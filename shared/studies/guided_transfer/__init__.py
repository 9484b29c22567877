"""When a guide is worth its cost, and what twelve samples can prove (Li and others, 2023).

* :mod:`shared.studies.guided_transfer.audit`: three muscles of eighteen mice, plain classifiers, splits by mouse.
* :mod:`shared.studies.guided_transfer.muscle`: the published experiment, at a size for one core, and a fair one.
* :mod:`shared.studies.guided_transfer.rivals`: other ways to spare weights, at one tuning budget, on three modules.
* :mod:`shared.studies.guided_transfer.tables`: means, gains and intervals of these rows.
"""

from shared.studies.guided_transfer import audit, muscle, rivals
from shared.studies.guided_transfer.tables import (
    cost_ratio,
    direction,
    gain,
    lead,
    level,
    minutes,
    part,
    pretraining_adds,
    share,
    which_weights,
)

MODULES = audit, muscle, rivals

__all__ = [
    "MODULES",
    "audit",
    "cost_ratio",
    "direction",
    "gain",
    "lead",
    "level",
    "minutes",
    "muscle",
    "part",
    "pretraining_adds",
    "rivals",
    "share",
    "which_weights",
]
