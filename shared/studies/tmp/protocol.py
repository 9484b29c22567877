"""The published protocol, whole: pre-trained on GTEx, fine-tuned on TCGA and on five studies of islets (Park 2021).

It is run by parts that stay on disk, one arm and seed at a time: a killed run goes on where it was. What the sources do
differently, and what is done here, stands beside each setting of :class:`Protocol`; :func:`cost` counts the episodes.
"""

from __future__ import annotations

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from shared.data.errors import DataError
from shared.evaluate.episodes import few_shot_accuracy
from shared.evaluate.splits import few_shot
from shared.methods.tmp import RELEASED, RelationNet, unit_range
from shared.methods.torch_method import seeded
from shared.nn.episodes import EpisodeSampler
from shared.preprocess import align_genes
from shared.studies.harness import run
from shared.train import resolve_device
from shared.train.episodes import MetaConfig, meta_train
from shared.train.saved import load_model, save_model

ISLETS = ("Baron", "Muraro", "Segerstolpe", "Wang", "Xin")


class Stage(NamedTuple):
    """One training: episodes at most, learning rate, after how many episodes it is halved, and where it stops."""

    episodes: int
    lr: float
    lr_step: int | None = None
    stop_at: float | None = None


BULK, TUMOURS, CELLS = Stage(300_000, 5e-4, 100_000), Stage(50_000, 5e-4, 1_500, 0.99), Stage(100_000, 1e-4)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Paper and code; where they differ, the paper, unless a line says otherwise.

    Parameters
    ----------
    n_genes : int
        In paper and code 18,000, those of GTEx, TCGA and STRING; one order for all stages here, three in the code.
    widths, relation : sequence of int
        Of the encoder and the relation network, which is the code's (:data:`shared.methods.tmp.RELEASED`).
    tissue_size, class_size : int
        Samples that a tissue needs to be pre-trained on, and a tumour to be fine-tuned on (200 in the code).
    n_query : int
        Queries of each class; 10 in the paper, 5 on single cells in the code.
    cells : int
        Of each class to fine-tune on. No test episode has one of them.
    bulk, tumours, islets : Stage
        Pre-training; fine-tuning on TCGA; fine-tuning on islets (50,000 and halved every 10,000 in the code).
    log_every : int
        Episodes over which the training accuracy is taken that may stop a training.
    eval_episodes, size_episodes : int
        Evaluation episodes; and those where classes and samples vary.
    sizes : sequence of (int, int)
        Classes and samples of each to fine-tune on in TCGA; the first is all 33, evaluated on `eval_episodes`.
    repeats : sequence of int
        Seeds.
    step_order : str
        The code's, see :class:`shared.train.episodes.MetaConfig`.
    device : str
        Of training and of evaluation.
    """

    n_genes: int = 18_000
    widths: Sequence[int] = (4000, 2000, 1000)
    relation: Sequence[int] = (500, 100)
    tissue_size: int = 100
    class_size: int = 100
    n_way: int = 5
    k_shot: int = 5
    n_query: int = 10
    cells: int = 15
    bulk: Stage = BULK
    tumours: Stage = TUMOURS
    islets: Stage = CELLS
    log_every: int = 2_500
    eval_episodes: int = 5_000
    size_episodes: int = 1_000
    sizes: Sequence[tuple[int, int]] = (
        (33, 15), (5, 15), (10, 15), (15, 15), (20, 15), (25, 15), (5, 30), (5, 45), (5, 60), (5, 75)
    )  # fmt: skip
    repeats: Sequence[int] = tuple(range(1, 11))
    step_order: str = "original"
    device: str = "auto"


# The data.


def published(load: Callable) -> dict:
    """GTEx, TCGA's tumours and five studies of islets, by the catalogue's official routes: name to (AnnData, column).

    ``load(name, route="official")`` gives an AnnData. Values are logarithms. Tumours come from a matrix that was
    adjusted for batch with the help of the labels, and cell types with one set of labels for all studies; the authors'
    own files are no longer served.
    """
    gtex, tcga, joined, wang = (load(name, route="official") for name in ("gtex-v8", "tcga", "pancreas", "wang"))
    for adata in (gtex, joined, wang):
        adata.X = np.log1p(adata.X)  # of any base: each profile is scaled to its own range
    gtex = gtex[:, ~gtex.var["symbol"].duplicated(keep=False)].copy()
    gtex.var_names = gtex.var["symbol"].astype(str)
    if "sample_type" in tcga.obs:
        tcga = tcga[tcga.obs["sample_type"].astype(str).str.contains("Tumor|Blood")]
    techs = {"Baron": "inDrop", "Muraro": "celseq2", "Segerstolpe": "smartseq2", "Xin": "smarter"}
    cells = {k: joined[joined.obs["batch"].astype(str).str.startswith(tech)] for k, tech in techs.items()} | {
        "Wang": wang
    }
    found = {"GTEx": (gtex, "tissue"), "TCGA": (tcga, "cancer")}
    return found | {name: (cells[name], "cell_type") for name in ISLETS}


def gene_list(studies: Mapping, n_genes: int, wanted=None) -> list[str]:
    """The one order of genes: those of GTEx and TCGA, and of `wanted` (the authors' list, STRING's), by the alphabet.

    Of more than `n_genes` those are kept that vary most in GTEx.
    """
    gtex, tcga = (studies[name][0] for name in ("GTEx", "TCGA"))
    both = sorted(set(gtex.var_names) & set(tcga.var_names) & set(gtex.var_names if wanted is None else wanted))
    if len(both) < 2:
        raise DataError(f"{len(both)} genes are in GTEx and TCGA: are they named by symbols in both?")
    spread = np.asarray(gtex[:, both].X).std(0)
    return sorted(both[i] for i in np.argsort(-spread, kind="stable")[:n_genes])


def on_genes(study, genes) -> tuple:
    """A study ``(AnnData, column)`` as ``(X, y)`` on these genes in this order; genes that it lacks are 0."""
    adata, column = study
    X = align_genes(adata, genes)[0].X
    return unit_range(X if isinstance(X, np.ndarray) else X.toarray()), adata.obs[column].to_numpy(str)


# The training.


def new_network(n_genes: int, config: Protocol, seed: int) -> RelationNet:
    """The network as released, with random weights, which the seed sets."""
    return seeded(lambda: RelationNet((n_genes, *config.widths), config.relation, **RELEASED), seed)


def train(net, study, stage: Stage, config: Protocol, seed: int, checkpoint=None):
    """Train in place by the rules of a stage; the network stays on the device."""
    X, y = study
    enough = np.unique(y, return_counts=True)[1] >= config.k_shot + config.n_query
    sampler = EpisodeSampler(X, y, min(config.n_way, int(enough.sum())), config.k_shot, config.n_query)
    return meta_train(
        net, sampler,
        MetaConfig(
            **stage._asdict(), log_every=config.log_every, step_order=config.step_order, seed=seed,
            device=config.device, checkpoint=checkpoint,
        ),
    )  # fmt: skip


def pretrain(folder, tissues, genes, config: Protocol, seed: int = 0, scrambled: bool = False) -> Path:
    """The folder of a network pre-trained on ``tissues = (X, y)``: made, or gone on with, where it is not there yet.

    `scrambled` gives the genes a random order, which the authors' scripts do by sorting the studies in several ways.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        X, y = tissues
        names, sizes = np.unique(y, return_counts=True)
        keep = np.isin(y, names[sizes >= config.tissue_size])
        order = np.random.default_rng(seed).permutation(len(genes)) if scrambled else np.arange(len(genes))
        net = new_network(len(genes), config, seed)
        train(net, (X[np.ix_(keep, order)], y[keep]), config.bulk, config, seed, folder / "checkpoint.safetensors")
        save_model(folder, {k: v.cpu().numpy() for k, v in net.state_dict().items()}, {"seed": seed}, genes)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return folder


class Tuned(NamedTuple):
    """A fine-tuned network, the study that it was fine-tuned on, and the rows that no test episode may have."""

    net: RelationNet
    name: str
    rows: np.ndarray


def finetune(init, stage, cells, n_classes, config: Protocol, genes, train_on, seed: int) -> Tuned:
    """An arm of the harness: a network, from the folder `init` or (None) from scratch, fine-tuned on a few cells.

    `stage` names one of the protocol's; `cells` of each class (None: all; 0: it stays as it is) of `n_classes` (None:
    of all that have them); ``train_on = (name, X, y)``.
    """
    name, X, y = train_on
    net = new_network(len(genes), config, seed)
    if init is not None:
        arrays, _, _ = load_model(init, genes)
        net.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()})
    rows = np.arange(0)
    if cells is None:
        rows = np.arange(len(y))
    elif cells:
        least = config.class_size if n_classes else 1
        rows = np.sort(few_shot(y, cells, seed, min_size=least, n_classes=n_classes)[0])
    if len(rows):
        train(net, (X[rows], y[rows]), getattr(config, stage), config, seed)
    return Tuned(net, name, rows)


def evaluated(config: Protocol, n_episodes: int, tuned: Tuned, tests: Mapping, seed: int) -> list[dict]:
    """Accuracy on each study, on the device that trained: rows of ``test``, ``accuracy``, ``half``, ``ari``.

    `half` is half the 95 % interval over episodes, which is what the paper's files hold. Where too few cells are left
    for episodes there is no row. Batch norms go by the batch's own statistics, as published.
    """
    found, net = [], tuned.net.to(resolve_device(config.device))
    for name, (X, y) in tests.items():
        rest = np.setdiff1d(np.arange(len(y)), tuned.rows) if name == tuned.name else np.arange(len(y))
        large = (np.unique(y[rest], return_counts=True)[1] >= config.k_shot + config.n_query).sum() if len(rest) else 0
        if large < 2:
            continue
        sampler = EpisodeSampler(X[rest], y[rest], min(config.n_way, int(large)), config.k_shot, config.n_query)
        got = few_shot_accuracy(net, sampler, n_episodes, mode="transductive", seed=1000 + seed)
        half = stats.t.ppf(0.975, n_episodes - 1) * got.accuracy.std(ddof=1) / n_episodes**0.5
        found.append({"test": name, "accuracy": got.accuracy.mean(), "half": half, "ari": got.ari.mean()})
    return found


# The experiments.


def swap(studies: Mapping, genes, inits: Mapping, config: Protocol, out, train_on=ISLETS) -> pd.DataFrame:
    """Figure 3: every arm of `inits` fine-tuned on each study of islets, and evaluated on all.

    Parameters
    ----------
    studies : dict of name to (X, y)
        The studies of islets.
    genes : sequence of str
        Their columns.
    inits : dict of name to folder or None
        How arms begin: a pre-trained network's folder, or None for from scratch.
    config : Protocol
        Its stage of islets, and its repeats.
    out : path
        Where finished parts are kept.
    train_on : sequence of str
        Studies to fine-tune on; the first is figure 3A's.

    Returns
    -------
    DataFrame
        ``data`` (fine-tuned on), ``arm``, ``seed``, ``test``, ``accuracy``, ``half``, ``ari``. Arms that end in "all
        cells" or "not fine-tuned" are figure 3A's, fine-tuned on the first study alone, with the first seed alone.
    """

    def arm(init, cells):
        return functools.partial(finetune, init, "islets", cells, None, config, genes)

    how = {"metric": functools.partial(evaluated, config, config.eval_episodes), "unit": "seed", "out": out}
    data = {name: ((name, *studies[name]), studies) for name in train_on}
    table = run({name: arm(init, config.cells) for name, init in inits.items()}, data, config.repeats, **how)
    more = {f"{name}, all cells": arm(init, None) for name, init in inits.items()}
    more |= {f"{name}, not fine-tuned": arm(init, 0) for name, init in inits.items() if init is not None}
    first = run(more, dict([*data.items()][:1]), config.repeats[:1], **how)
    return pd.concat([table, first], ignore_index=True)


def tumours(study, genes, inits: Mapping, config: Protocol, out) -> pd.DataFrame:
    """Figure 2: every arm of `inits` fine-tuned on each of ``config.sizes``, and not at all, of TCGA's 33 cancers.

    Arguments are those of :func:`swap`, of one study. Returns ``arm``, ``classes``, ``cells``, ``seed``, ``accuracy``,
    ``half``, ``ari``; of a network that is not fine-tuned, classes and cells are 0.
    """
    whole, tables = len(np.unique(study[1])), []
    data = {"TCGA": (("TCGA", *study), {"TCGA": study})}
    for k, n in [(0, 0), *config.sizes]:
        every = k in (0, whole)
        arms = {
            name: functools.partial(finetune, init, "tumours", n, None if every else k, config, genes)
            for name, init in inits.items()
            if k or init is not None
        }
        metric = functools.partial(evaluated, config, config.eval_episodes if every else config.size_episodes)
        table = run(arms, data, config.repeats if k else config.repeats[:1], metric, unit="seed", out=out)
        tables.append(table.assign(classes=k, cells=n))
    columns = ["arm", "classes", "cells", "seed", "accuracy", "half", "ari"]
    return pd.concat(tables, ignore_index=True)[columns]


def t_tests(table: pd.DataFrame, arm: str, baseline: str, by=("data", "test")) -> pd.DataFrame:
    """As in the paper: Student's t of the repeats of two arms, for every pair of studies (or whatever `by` names).

    Returns the means of ``arm`` and ``baseline``, their difference with its 95 % interval over repeats, ``p``, ``n``.
    """
    rows = {}
    for key, part in table[table["arm"].isin([arm, baseline])].groupby(list(by), sort=False):
        a, b = (part.loc[part["arm"] == name, "accuracy"].to_numpy() for name in (arm, baseline))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # repeats that are all alike: no p
            got = stats.ttest_ind(a, b)
            low, high = got.confidence_interval()
        rows[key] = {arm: a.mean(), baseline: b.mean(), "difference": a.mean() - b.mean(), "low": low, "high": high}
        rows[key] |= {"p": got.pvalue, "n": len(a)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(list(by) if len(by) > 1 else by[0])


# What it costs.


def cost(config: Protocol, n_inits: int = 2, n_islets: int = len(ISLETS)) -> pd.DataFrame:
    """Episodes of each part, at most: ``trainings``, ``episodes`` in all, ``evaluation`` episodes in all.

    `n_inits` counts the arms, one of them from scratch; the others are each pre-trained once, as the paper's.
    """
    repeats, pre = len(config.repeats), n_inits - 1
    swaps, sizes = n_inits * n_islets * repeats, n_inits * len(config.sizes) * repeats
    rows = {
        "pre-training": (pre, config.bulk.episodes, 0),
        "islets, 15 cells": (swaps, config.islets.episodes, n_islets * config.eval_episodes),
        "islets, all cells": (n_inits, config.islets.episodes, n_islets * config.eval_episodes),
        "tumours": (sizes, config.tumours.episodes, config.size_episodes),
        "not fine-tuned": (2 * pre, 0, (n_islets + 1) * config.eval_episodes),
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["trainings", "episodes", "evaluation"])
    table[["episodes", "evaluation"]] = table[["episodes", "evaluation"]].mul(table["trainings"], axis=0)
    return table


def measure(config: Protocol, n_rows: int = 150, n: int = 3) -> dict[str, float]:
    """Seconds of one training and one evaluation episode at full width on this machine, the least of `n`.

    Profiles are random. ``parameters`` counts those of the network; weights, gradients and Adam's two moments are 16
    bytes each, and an episode reads four and writes three of these four-byte numbers for every parameter.
    """
    X, y = np.random.default_rng(0).random((n_rows, config.n_genes), np.float32), np.arange(n_rows) % config.n_way
    net, stage = new_network(config.n_genes, config, 0), Stage(1, config.bulk.lr)
    train(net, (X, y), stage, config, 0)  # the first episode takes longer

    def seconds(act):
        began = time.perf_counter()
        act()
        return time.perf_counter() - began

    tuned = Tuned(net, "", np.arange(0))
    return {
        "train": min(seconds(lambda: train(net, (X, y), stage, config, 0)) for _ in range(n)),
        "evaluate": min(seconds(lambda: evaluated(config, 2, tuned, {"": (X, y)}, 0)) for _ in range(n)) / 2,
        "parameters": sum(p.numel() for p in net.parameters()),
    }
