"""What pre-training a gene transformer is worth in blood, beside regressions on the same cells (Yang and others, 2022).

* :mod:`shared.studies.scbert.blood`: the sets under the same gene symbols, and what a seed makes of them.
* :mod:`shared.studies.scbert.arms`: two pre-trainings, and the arms that are fitted to labels.
* :mod:`shared.studies.scbert.beyond`: masked genes, types without a label, markers; all rows of a seed.
* :mod:`shared.studies.scbert.checks`: what else may explain these: counted pairs of genes, the genes that are read.
* :mod:`shared.studies.scbert.tables`: means, gains and intervals of these rows.
"""

from shared.studies.scbert import arms, beyond, blood, checks
from shared.studies.scbert.arms import (
    ALL,
    CONTROL,
    L1,
    L2,
    NAMELESS,
    NETWORKS,
    PRETRAINED,
    REGRESSIONS,
    SCRATCH,
    SIZES,
    TRIES,
    pretrained,
)
from shared.studies.scbert.beyond import MARKERS, all_rows
from shared.studies.scbert.blood import OTHER, SORTED, TASKS, UNSORTED, logs, of_files, parted, simulated, split
from shared.studies.scbert.checks import PAIRS, check_rows, length_rows, unlearned
from shared.studies.scbert.tables import (
    by_groups,
    cost_ratio,
    expression_rows,
    gain,
    level,
    longer,
    minutes,
    part,
    wider,
)

MODULES = blood, arms, beyond

__all__ = [
    "ALL",
    "CONTROL",
    "L1",
    "L2",
    "MARKERS",
    "MODULES",
    "NAMELESS",
    "NETWORKS",
    "OTHER",
    "PAIRS",
    "PRETRAINED",
    "REGRESSIONS",
    "SCRATCH",
    "SIZES",
    "SORTED",
    "TASKS",
    "TRIES",
    "UNSORTED",
    "all_rows",
    "by_groups",
    "check_rows",
    "checks",
    "cost_ratio",
    "expression_rows",
    "gain",
    "length_rows",
    "level",
    "logs",
    "longer",
    "minutes",
    "of_files",
    "part",
    "parted",
    "pretrained",
    "simulated",
    "split",
    "unlearned",
    "wider",
]
