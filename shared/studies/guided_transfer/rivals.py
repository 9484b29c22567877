"""Ways to spare pre-trained weights, at one tuning budget, on three pre-trained modules and few labelled blood cells.

Modules learn from run 1 without labels, are fine-tuned on a few of its cells, and are tested on run 2, other donors.
"""

from __future__ import annotations

import copy
import time
from typing import NamedTuple

import numpy as np
from torch import nn
from torch.nn.functional import mse_loss

from shared.evaluate.metrics import balanced_accuracy
from shared.evaluate.splits import few_shot
from shared.methods.guided_transfer import (
    EWC,
    L2SP,
    BitFit,
    Frozen,
    Full,
    Guided,
    GuidedTransfer,
    LoRA,
    candidates,
    cluster,
    diagonal_fisher,
    sampled_loss,
)
from shared.methods.scbert import PooledNet, ScBERT, Tokenizer, coexpression_vectors
from shared.methods.tmp import TMP
from shared.methods.torch_method import seeded
from shared.preprocess import log_normalize
from shared.studies.scbert.blood import residual_variance
from shared.train import Config, fit

AUTOENCODER, TRANSFORMER, RELATION = "autoencoder", "scBERT", "TMP's encoder"
MODULES = AUTOENCODER, TRANSFORMER, RELATION
FULL, FROZEN, UPDATE, GRADIENT = "full", "frozen", "guide, update", "guide, gradient"
SHUFFLED, UNIFORM = "shuffled guide, update", "uniform guide, update"
ARMS = FULL, FROZEN, "L2-SP", "EWC", "LoRA", "BitFit", UPDATE, GRADIENT, SHUFFLED, UNIFORM
LRS = 3e-3, 3e-2
BINS = 7


class Blood(NamedTuple):
    """Cells of two runs, with the genes that vary most in the first.

    Attributes
    ----------
    X, y : float32 ndarray of cells × genes, ndarray of str
        ln(1 + counts per 10,000) of run 1, and its types.
    X_test, y_test
        Of run 2.
    """

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


class Learned(NamedTuple):
    """A module that was pre-trained and scouted.

    Attributes
    ----------
    module : torch.nn.Module
    head : callable or None
        See :class:`shared.methods.guided_transfer.GuidedTransfer`.
    columns : callable
        From cells × genes to what the module takes.
    guide : Guide
        Of the module, not of its head.
    fisher : dict of str to tensor
        Of the module with a head that tells the clusters of unlabelled cells apart.
    cpu : dict
        Seconds of processor time of pre-training, scouts and Fisher information.
    scouted : float
        Mean over scouts of their last loss on held-out cells.
    blood : Blood
    name : str
    """

    module: nn.Module
    head: object
    columns: object
    guide: object
    fisher: dict
    cpu: dict
    scouted: float
    blood: Blood
    name: str


def blood_of(adata, n_genes: int, least: int = 8) -> Blood:
    """The bundled blood: run 1 and run 2, types with as many cells of run 1 as are labelled and held out."""
    counts = adata.layers.get("counts", adata.X)
    X = log_normalize(counts).astype(np.float32)
    y, first = adata.obs["cell_type"].to_numpy(str), (adata.obs["run"] == "run1").to_numpy()
    kinds = [kind for kind in np.unique(y) if (y[first] == kind).sum() >= least and (y[~first] == kind).any()]
    kept = np.isin(y, kinds)
    genes = np.sort(np.argsort(-residual_variance(X[first]), kind="stable")[:n_genes])
    X = X[:, genes].toarray() if hasattr(X, "toarray") else X[:, genes]
    return Blood(X[first & kept], y[first & kept], X[~first & kept], y[~first & kept])


class Autoencoder(nn.Module):
    """Genes to an embedding and back, by linear layers with ReLU."""

    def __init__(self, n_genes, hidden, width):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(n_genes, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, n_genes))

    def forward(self, X):
        """Genes as they are rebuilt: cells × genes."""
        return self.decoder(self.encoder(X))


def rebuild_step(net, X):
    """Mean squared error of what is rebuilt."""
    return mse_loss(net(X), X)


def same(X):
    """Cells as they are, as the only column."""
    return (X,)


class TokensOf:
    """Tokens and genes of cells, as a transformer takes them; genes of a sequence are `length` of each cell's own."""

    def __init__(self, n_genes, length):
        self.of = Tokenizer(n_genes, BINS, logged=True, length=length)

    def __call__(self, X):
        return self.of(X)


def mean_pooled(transformer, n_types):
    """A head on the mean embedding of a cell's tokens."""
    return PooledNet(transformer, "mean", n_types)


def module_of(name: str, X, clusters, seed: int, *, epochs: int, sizes) -> tuple:
    """A module pre-trained on unlabelled cells, its head and what it takes.

    The relation network needs labels for its episodes, and no labelled collection lists these genes: clusters of the
    unlabelled cells stand for types.
    """
    if name == AUTOENCODER:
        net = seeded(lambda: Autoencoder(X.shape[1], *sizes["widths"]), seed)
        fit(net, rebuild_step, (X,), Config(epochs=epochs, lr=1e-3, batch_size=64, seed=seed, device="cpu"))
        return net.encoder, None, same
    if name == RELATION:
        model = TMP(sizes["widths"], (16,), episodes=10 * epochs, scale=False, norm="running", random_state=seed)
        model.set_params(
            device="cpu", n_way=min(5, len(np.unique(clusters))), k_shot=3, n_query=5, log_every=10 * epochs
        )
        model.pretrain(X, clusters)
        net = seeded(lambda: model.build(_Shape(X.shape[1])), seed)
        net.load_state_dict(model.pretrained_["state"])
        return net.encoder, None, same
    how = {"bins": BINS, "logged": True, "gene_vectors": "none", "device": "cpu", "schedule": "cosine", "lr": 3e-3}
    model = ScBERT(**how | sizes["transformer"], epochs=epochs, random_state=seed)
    model.pretrain(X, vectors=coexpression_vectors(X, model.dim, seed))
    net = seeded(lambda: model.build(_Shape(X.shape[1])), seed)
    net.load_state_dict(model.pretrained_["state"])
    net.out.requires_grad_(False)
    return net, mean_pooled, TokensOf(X.shape[1], model.length)


class _Shape(NamedTuple):
    """What :meth:`build` asks of cells."""

    n_genes: int
    n_classes: int = 0


SIZES = {"widths": (64, 32), "transformer": {"dim": 16, "depth": 2, "heads": 2, "width": 8, "length": 32}}


def learn(
    blood: Blood,
    seed: int,
    *,
    name: str,
    epochs: int,
    scouts: int,
    scout_epochs: int = 10,
    n_clusters: int = 10,
    sizes=None,
) -> Learned:
    """Pre-train a module on run 1, send scouts to pairs of its clusters, and measure its Fisher information."""
    cpu, sizes, start = {}, SIZES | (sizes or {}), time.process_time()
    clusters = cluster(blood.X, n_clusters, 20, seed)
    module, head, columns = module_of(name, blood.X, clusters, seed, epochs=epochs, sizes=sizes)
    module = module.eval()
    cpu["pre-training"], start = time.process_time() - start, time.process_time()
    config = Config(epochs=scout_epochs, lr=3e-3, optimizer="adam", batch_size=32, device="cpu")
    model = GuidedTransfer(module, head, config=config, seed=seed)
    model.scout(columns(blood.X), clusters, scouts, max_cells=40)
    cpu["scouts"], start = time.process_time() - start, time.process_time()
    fisher = fisher_of(module, head, columns(blood.X), clusters, seed, scout_epochs)
    cpu["Fisher information"] = time.process_time() - start
    held = float(np.mean([one.rows[-1]["val_loss"] for one in model.scouts_.histories]))
    # The guide names the whole network; another with as many classes has the same encoder, under the same names.
    return Learned(module, head, columns, model.guide_, fisher, cpu, held, blood, name)


def fisher_of(module, head, columns, clusters, seed, epochs):
    """Diagonal Fisher information of a module under a head that tells clusters apart, trained on the frozen module."""
    config = Config(epochs=epochs, lr=1e-2, optimizer="adam", batch_size=64, device="cpu")
    model = GuidedTransfer(copy.deepcopy(module), head, Frozen(), config=config, seed=seed).fit(columns, clusters)
    net = model.network_
    part = net[0] if head is None else net.transformer
    for p, q in zip(part.parameters(), module.parameters(), strict=True):
        p.requires_grad_(q.requires_grad)
    return diagonal_fisher(net, sampled_loss, columns, part, rows=100, seed=seed)


def strategy_of(learned: Learned, arm: str, seed: int):
    """How an arm trains, its own setting and the learning rate still to be chosen."""
    guide = learned.guide
    return {
        FULL: Full, FROZEN: Frozen, "L2-SP": L2SP, "LoRA": LoRA, "BitFit": BitFit,
        "EWC": lambda: EWC(learned.fisher),
        UPDATE: lambda: Guided(guide), GRADIENT: lambda: Guided(guide, "gradient"),
        SHUFFLED: lambda: Guided(guide.shuffled(seed)), UNIFORM: lambda: Guided(guide.uniform("network")),
    }[arm]()  # fmt: skip


def draw(y, shots: int, held: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to choose settings by: so many of each type, none in both."""
    train, _ = few_shot(y, shots, random_state=seed)
    judge, _ = few_shot(y, held, random_state=seed, exclude=train)
    return train, judge


def all_rows(learned: Learned, _, seed: int, *, shots=5, held=3, budget=8, epochs=30, arms=ARMS) -> list[dict]:
    """Every arm: as many settings tried, the one with the lowest loss on held-out labels of run 1 tested on run 2."""
    blood = learned.blood
    train, judge = draw(blood.y, shots, held, seed)
    few, tried_on, test = (learned.columns(X) for X in (blood.X[train], blood.X[judge], blood.X_test))
    about = {"what": "learned", "arm": "", "scouted": learned.scouted, "guide": learned.guide.mean()}
    rows = [about | {f"cpu_{k}": v for k, v in learned.cpu.items()} | {"train": len(train), "judge": len(judge)}]
    rows[0] |= {"test": len(blood.y_test), "types": len(np.unique(blood.y))}
    for arm in arms:
        best, spent = None, 0.0
        for strategy, lr in candidates(strategy_of(learned, arm, seed), budget, LRS):
            start = time.process_time()
            config = Config(epochs=epochs, lr=lr, optimizer="adam", batch_size=64, device="cpu")
            model = GuidedTransfer(learned.module, learned.head, strategy, config=config, seed=seed)
            model.fit(few, blood.y[train])
            one = time.process_time() - start
            spent += one
            p = model.predict_proba(tried_on)
            right = p[np.arange(len(judge)), np.searchsorted(model.classes_, blood.y[judge])]
            loss = float(-np.log(np.maximum(right, 1e-12)).mean())
            if best is None or loss < best[0]:
                best = loss, model, one, lr, getattr(strategy, strategy.tunes, np.nan) if strategy.tunes else np.nan
        loss, model, one, lr, own = best
        row = {"what": "arm", "arm": arm, "accuracy": balanced_accuracy(blood.y_test, model.predict(test))}
        rows.append(row | {"held_loss": loss, "lr": lr, "own": own, "cpu": one, "cpu_tries": spent})
    return rows


def simulated(seed: int = 0, n_genes: int = 60, cells: int = 120, kinds: int = 4, noise: float = 1.0) -> Blood:
    """Two runs of cells around one centre a type, the second shifted: for tests."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(1, 1, (kinds, n_genes))
    parts = []
    for shift in (0.0, 0.3):
        y = np.arange(cells) % kinds
        X = np.maximum(centres[y] + rng.normal(shift, noise, (cells, n_genes)), 0).astype(np.float32)
        parts += [X, np.array([f"type {k}" for k in y])]
    return Blood(*parts)
