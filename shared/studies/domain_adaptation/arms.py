"""Ways to name target cells, each with four settings; what is chosen of them is a matter of the tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from shared.methods.domain_adaptation import (
    CDAN,
    CORAL,
    DANN,
    AdaptedClassifier,
    CenterDomains,
    DeepCORAL,
    DeepMMD,
    SubspaceAlignment,
    TransportMap,
)
from shared.studies.domain_adaptation.tasks import UNKNOWN, Domain, Drawn

LOGISTIC, NETWORK = "logistic regression", "network"
CENTRING, SCALING, RECOLORING, SUBSPACE, TRANSPORT = "centring", "z per domain", "CORAL", "subspaces", "transport"
DEEP_CORAL, DEEP_MMD, ADVERSARIAL, CONDITIONAL = "deep CORAL", "deep MMD", "DANN", "CDAN"
SHALLOW = CENTRING, SCALING, RECOLORING, SUBSPACE, TRANSPORT
DEEP = DEEP_CORAL, DEEP_MMD, ADVERSARIAL, CONDITIONAL
ADAPTING = *SHALLOW, *DEEP
ARMS = LOGISTIC, *SHALLOW, NETWORK, *DEEP
BASELINE = dict.fromkeys(SHALLOW, LOGISTIC) | dict.fromkeys(DEEP, NETWORK)  # the same classifier without adaptation
LABELS = {"5 target labels a type": 5, "20 target labels a type": 20}  # yardsticks, which have what no other arm has
N_COMPONENTS = 30


def tried(C: Sequence[float], **own) -> list[dict]:
    """Every value of one own setting with every `C`; without one, every `C`."""
    ((name, values),) = own.items() or (("", [None]),)
    return [{"C": c} | ({name: v} if name else {}) for v in values for c in C]


def trained(optimizers: Sequence[str], weights: Sequence[float] = (0.0,)) -> list[dict]:
    """Every weight with two learning rates of each optimiser."""
    rates = {"adamw": (1e-3, 3e-3), "sgd": (1e-2, 3e-2)}
    return [{"weight": w, "optimizer": o, "lr": lr} for w in weights for o in optimizers for lr in rates[o]]


GRID = {
    LOGISTIC: tried((0.01, 0.1, 1, 10)),
    CENTRING: tried((0.01, 0.1, 1, 10)),
    SCALING: tried((0.01, 0.1, 1, 10)),
    RECOLORING: tried((0.1, 1), reg=("auto", 1.0)),
    SUBSPACE: tried((0.1, 1), n_components=(10, 30)),
    TRANSPORT: tried((0.1, 1), reg=(0.01, 0.1)),
    NETWORK: trained(("adamw", "sgd")),
    DEEP_CORAL: trained(["adamw"], (1.0, 30.0)),
    DEEP_MMD: trained(["adamw"], (0.3, 3.0)),
    ADVERSARIAL: trained(["sgd"], (0.1, 0.3)),
    CONDITIONAL: trained(["sgd"], (0.1, 0.3)),
}
ADAPTERS = {
    CENTRING: CenterDomains,
    SCALING: lambda: CenterDomains(scale=True),
    RECOLORING: CORAL,
    SUBSPACE: SubspaceAlignment,
    TRANSPORT: TransportMap,
}
# Without target cells a method trains the network that all of them share, and DANN does with either optimiser.
METHODS = {NETWORK: DANN, DEEP_CORAL: DeepCORAL, DEEP_MMD: DeepMMD, ADVERSARIAL: DANN, CONDITIONAL: CDAN}


class Fitted:
    """A fitted arm: probabilities of cells by their domain, and where it puts them.

    Parameters
    ----------
    model : fitted classifier
    before : callable, optional
        What is done to expression before the model reads it.
    moved : callable
        ``moved(X, domain)``: cells in the space that the domains share.
    """

    def __init__(self, model, moved, before=None):
        self.model, self.moved, self.before = model, moved, before or (lambda X: X)
        self.classes_ = model.classes_

    def predict_proba(self, X, sample_domain=None):
        """Probability of each type, cells × types; cells are of the target where nothing is said."""
        X = self.before(X)
        adapts = isinstance(self.model, AdaptedClassifier)
        return self.model.predict_proba(X, sample_domain) if adapts else self.model.predict_proba(X)

    def predict(self, X):
        """Types of target cells."""
        return self.classes_[self.predict_proba(X).argmax(1)]

    def embed(self, X, is_source: bool) -> np.ndarray:
        """Cells of one domain in the space that the domains share."""
        return np.asarray(self.moved(self.before(X), np.full(len(X), 1 if is_source else -1)))


def both(train: Domain, adapt: Domain) -> tuple:
    """Source and target cells as a method takes them; the target's types are not told."""
    X, y = np.vstack([train.X, adapt.X]), np.r_[train.y, np.full(len(adapt.y), "?")]
    return X, y, np.repeat([1, -1], [len(train.y), len(adapt.y)])


def logistic(C: float) -> LogisticRegression:
    """The last step of every shallow arm."""
    return LogisticRegression(C=C, max_iter=2000)


def fit(arm: str, setting: dict, one: Drawn, seed: int, *, epochs: int = 40, hidden=(64, 32)) -> Fitted:
    """One arm with one setting, on the training part of the source and the target cells to adapt to."""
    if arm in (LOGISTIC, *SHALLOW):
        own = {k: v for k, v in setting.items() if k != "C"}
        adapter, last = ADAPTERS.get(arm, CenterDomains)(), logistic(setting["C"])
        model = AdaptedClassifier(adapter.set_params(**own), last)
        X, y, domain = both(one.train, one.adapt)
        if arm == LOGISTIC:
            model.fit(one.train.X, one.train.y)
            return Fitted(model, lambda X, domain: X)
        before = None
        if arm == TRANSPORT:  # among hundreds of genes all distances are alike
            before = PCA(min(N_COMPONENTS, *X.shape), svd_solver="full").fit(X).transform
            X = before(X)
        model.fit(X, y, domain)
        return Fitted(model, model.adapter_.transform, before)
    how = {"epochs": epochs, "batch_size": 64, "device": "cpu", "random_state": seed}
    own = {k: v for k, v in setting.items() if k != "optimizer" or arm in (NETWORK, ADVERSARIAL, CONDITIONAL)}
    model = METHODS[arm](hidden, **how, **own)
    model.fit(one.train.X, one.train.y) if arm == NETWORK else model.fit(*both(one.train, one.adapt))
    return Fitted(model, lambda X, domain: model.transform(X))


class Tries(NamedTuple):
    """An arm with all its settings.

    Attributes
    ----------
    arm : str
    fitted : list of Fitted
        In the order of :data:`GRID`.
    cpu : list of float
        Seconds of processor time of each fit.
    how : dict
        Options of :func:`fit`.
    """

    arm: str
    fitted: list
    cpu: list
    how: dict


def fit_all(one: Drawn, seed: int, *, arm: str, **how) -> Tries:
    """Every setting of an arm."""
    fitted, cpu = [], []
    for setting in GRID[arm]:
        start = time.process_time()
        fitted.append(fit(arm, setting, one, seed, **how))
        cpu.append(time.process_time() - start)
    return Tries(arm, fitted, cpu, how)


def few_labels(one: Drawn, n: int, seed: int) -> Fitted:
    """Logistic regression on `n` labelled target cells of each type, fewer where there are fewer; no source."""
    rng, y = np.random.default_rng((seed, 3)), one.adapt.y
    kinds = [kind for kind in np.unique(y) if kind != UNKNOWN]
    rows = np.concatenate([rng.permutation(np.flatnonzero(y == kind))[:n] for kind in kinds])
    model = AdaptedClassifier(CenterDomains(), logistic(1.0)).fit(one.adapt.X[rows], y[rows])
    return Fitted(model, lambda X, domain: X)
