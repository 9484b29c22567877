"""When bringing two domains together helps, and how anyone could tell without target labels.

* :mod:`shared.studies.domain_adaptation.tasks`: pairs of domains, and what a seed makes of them.
* :mod:`shared.studies.domain_adaptation.arms`: eleven ways to name target cells, each with four settings.
* :mod:`shared.studies.domain_adaptation.measures`: accuracy, risks, alignment, a label shift with a dial, a control.
* :mod:`shared.studies.domain_adaptation.rivals`: methods of other people's packages, where they are installed.
* :mod:`shared.studies.domain_adaptation.tables`: choices, gains, regrets and correlations of these rows.
"""

from shared.studies.domain_adaptation import arms, measures, rivals, tables, tasks
from shared.studies.domain_adaptation.measures import all_rows
from shared.studies.domain_adaptation.tables import part

MODULES = tasks, arms, measures

__all__ = ["MODULES", "all_rows", "arms", "measures", "part", "rivals", "tables", "tasks"]
