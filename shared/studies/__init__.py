"""Studies: arms, data sets and seeds in, a tidy table out, by one harness that any method and any data can use.

:func:`run` is the harness, :func:`search` gives every arm the same tuning budget, :func:`compare` says by how much arms
differ over what the next study would vary. What belongs to one paper, its arms and its numbers, has a module or folder
under the name of its chapter.
"""

from shared.studies.harness import compare, fit_arms, run, search

__all__ = ["compare", "fit_arms", "run", "search"]
