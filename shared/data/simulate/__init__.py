"""Simulated expression data that come with the truth they were made from.

Every function but :func:`gaussian` and :func:`modalities` draws from one model. Gene g of cell i, of type t and batch
b, has the log rate

    eta = a[g] + L[t, g] + shift[b, g] + stretch[b] * L[t, g] + own[b, t, g]

where a is how much a gene is expressed at all, L the gene programmes of the types, and the rest what a batch does.
Rates are made shares of the cell's depth, D[i] (log-normal), and counts are drawn from a negative binomial:

    mu[i, g] = D[i] * softmax(eta)[g],   x ~ Poisson(mu * Gamma(1 / dispersion, dispersion))

so that the variance is mu + dispersion * mu**2. ``uns["truth"]`` says what was drawn, and ``uns["simulated"]`` is True:
show the word wherever such data are shown. One seed gives the same bytes each time.
"""

from shared.data.simulate.domains import domains
from shared.data.simulate.gaussian import gaussian
from shared.data.simulate.modalities import BLOOD, modalities
from shared.data.simulate.model import NAMES
from shared.data.simulate.resemble import compare, like, summary
from shared.data.simulate.samples import bulk, cells, many, multiome

__all__ = [
    "BLOOD", "NAMES", "bulk", "cells", "compare", "domains", "gaussian", "like", "many", "modalities", "multiome",
    "summary",
]  # fmt: skip
