"""When matching batches cluster by cluster helps, what carries it, and what it does to a type that one batch lacks.

* :mod:`shared.studies.bermuda.tasks`: batches under the same genes, and what a seed draws of them.
* :mod:`shared.studies.bermuda.arms`: eleven ways to bring batches together, and changes of BERMUDA.
* :mod:`shared.studies.bermuda.measures`: mixing, types, names given across batches, and lone types.
* :mod:`shared.studies.bermuda.paper`: the paper's simulation, and losses as a survey printed them.
* :mod:`shared.studies.bermuda.tables`: choices, levels and differences of these rows.
"""

from shared.studies.bermuda import arms, measures, paper, tables, tasks

MODULES = tasks, arms, measures

__all__ = ["MODULES", "arms", "measures", "paper", "tables", "tasks"]
