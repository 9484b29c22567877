"""What pre-training on clusters is worth, study by study, beside baselines on the same cells (Zhang and others, 2022).

* :mod:`shared.studies.scpretrain.data_sets`: labelled sets of several studies, real or simulated.
* :mod:`shared.studies.scpretrain.left_out`: every study left out in turn; all arms on the same labelled cells.
* :mod:`shared.studies.scpretrain.variants`: one thing changed at a time, on small corpora of equal size.
"""

from shared.studies.scpretrain import data_sets, left_out, variants
from shared.studies.scpretrain.data_sets import of_catalogue, of_files, simulated
from shared.studies.scpretrain.left_out import by_set, gain, pretrained, set_rows, stability, tries, verdicts
from shared.studies.scpretrain.variants import (
    BASE,
    LEAKS,
    STEPS,
    VARIANTS,
    leak_rows,
    measured_step,
    one_a_study,
    passed_on,
    variant_rows,
)

MODULES = data_sets, left_out, variants

__all__ = [
    "BASE",
    "LEAKS",
    "MODULES",
    "STEPS",
    "VARIANTS",
    "by_set",
    "gain",
    "leak_rows",
    "measured_step",
    "of_catalogue",
    "of_files",
    "one_a_study",
    "passed_on",
    "pretrained",
    "set_rows",
    "simulated",
    "stability",
    "tries",
    "variant_rows",
    "verdicts",
]
