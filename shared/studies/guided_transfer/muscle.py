"""The published experiment at a size for one core: a gene transformer, pre-trained and scouted, on three muscle sets.

Pre-trained on what is at hand that is no test sample, fine-tuned on OSD-105 (twelve samples), its epoch chosen by
OSD-104, tested on OSD-99; and the same without that choice, on the six mice that were not trained on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import torch

from shared.data.cache import sha256
from shared.data.errors import DataError
from shared.data.genes.translate import to_mouse
from shared.evaluate.splits import check_disjoint, grouped_split
from shared.methods.guided_transfer import Full, Guide, Guided, classify_step, cluster, finetune, send_scouts
from shared.methods.guided_transfer.scouts import trained
from shared.methods.scbert import CellTypeNet, FavorAttention, GeneTransformer, ScBERT, Tokenizer, coexpression_vectors
from shared.methods.scbert.finetuning import freeze, prefixes
from shared.methods.scbert.heads import AfterPrefix
from shared.methods.torch_method import seeded
from shared.studies.guided_transfer.audit import Samples, most_variable, simulated_level, values
from shared.train import Config

TRAIN, CHOOSE, TEST = "OSD-105", "OSD-104", "OSD-99"
SCRATCH, PRETRAINED, GRADIENT = "no pre-training", "pre-training", "pre-training, scouts (gradient)"
UPDATE, SHUFFLED = "pre-training, scouts (update)", "pre-training, shuffled guide (update)"
ARMS = SCRATCH, PRETRAINED, GRADIENT, UPDATE, SHUFFLED
FILES = {"kidney": "tabula_muris_kidney_facs_215", "pollen": "pollen_11types_299", "myoblasts": "hsmm_myoblast_271"}
SIZES = {
    "bins": 7, "logged": True, "attention": "favor", "dim": 32, "depth": 6, "heads": 2, "width": 16,
    "gene_vectors": "none", "length": 128, "lr": 2e-3, "schedule": "cosine", "device": "cpu",
}  # fmt: skip
HEAD = "net.number", "net.classify"  # of the network, which no guide holds


class Task(NamedTuple):
    """What a seed learns from.

    Attributes
    ----------
    corpus : float32 ndarray, samples × chosen genes
        ln(1 + counts per million of all genes of a sample), no test sample among them.
    X : float32 ndarray, samples × chosen genes
        The same of the muscle samples.
    samples : Samples
        With all genes.
    genes : list of str
    """

    corpus: np.ndarray
    X: np.ndarray
    samples: Samples
    genes: list


class Learned(NamedTuple):
    """What was learned without labels of muscles.

    Attributes
    ----------
    task : Task
    state : dict
        Of the pre-trained transformer.
    vectors : float32 ndarray, genes × dim
    guide : Guide
        By the names of the network after its frozen blocks, the head left out.
    cpu : dict
        Seconds of processor time of pre-training and scouts.
    scores : dict
        Share of masked tokens of the other muscles that are predicted right: of the network and of rules.
    scouted : float
        Mean accuracy of the scouts on held-out samples.
    sizes : dict
    """

    task: Task
    state: dict
    vectors: np.ndarray
    guide: Guide
    cpu: dict
    scores: dict
    scouted: float
    sizes: dict


def corpus_of(files) -> tuple[dict, dict]:
    """Sets to pre-train on, under mouse symbols, by name; and the SHA-256 of their files.

    Human genes become their one-to-one mouse partners; others are lost. `files` are those in which the names of
    :data:`FILES` are looked for.

    Raises
    ------
    DataError
        If a file is missing.
    """
    paths = {path.stem: path for path in map(Path, files)}
    if lacking := [name for name in FILES.values() if name not in paths]:
        raise DataError(
            f"{' and '.join(lacking)} are in no folder of BORROWED_MIRROR: the study's page says where these samples "
            "can be had; profile='smoke' takes simulated ones"
        )
    sets = {name: ad.read_h5ad(paths[stem]) for name, stem in FILES.items()}
    sets = {name: one if name == "kidney" else to_mouse(one)[0] for name, one in sets.items()}
    return sets, {stem: sha256(paths[stem]) for stem in FILES.values()}


def simulated_corpus(samples: Samples, n: int = 60, seed: int = 0) -> dict:
    """Simulated sets with the genes of some samples, three kinds of them."""
    rng = np.random.default_rng(seed)
    level = simulated_level(rng, len(samples.genes))
    counts = rng.poisson(level[np.arange(n) % 3]).astype(np.float32)
    one = ad.AnnData(counts)
    one.var_names = samples.genes
    return {"simulated": one}


def task_of(samples: Samples, sets: Mapping, n_genes: int) -> Task:
    """Genes are those that vary most in OSD-105 among what all sets list; OSD-105 joins the corpus, unlabelled."""
    genes = [g for g in samples.genes if all(g in one.var_names for one in sets.values())]
    place = [samples.genes.index(g) for g in genes] if len(genes) < len(samples.genes) else slice(None)
    logs = values(samples.counts)[:, place] * np.float32(np.log(2))
    known = samples.study == TRAIN
    chosen = most_variable(logs[known], n_genes)
    names = [genes[i] for i in chosen]
    parts = [logs[known][:, chosen]]
    for one in sets.values():
        X = one.layers.get("counts", one.X)
        X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
        scaled = np.log1p(X / np.maximum(X.sum(1, keepdims=True), 1e-9) * 1e6)
        parts.append(scaled[:, one.var_names.get_indexer(names)].astype(np.float32))
    return Task(np.concatenate(parts), np.ascontiguousarray(logs[:, chosen]), samples, names)


def network(learned: Learned, pretrained: bool, seed: int) -> tuple[AfterPrefix, int]:
    """A network with two classes, all but one block, the last norm and the head frozen; and how many blocks precede.

    As in the code the second to last block is trained. The first are left out of it, for what they give is computed
    once: see :func:`first_blocks`.
    """
    sizes = learned.sizes
    shape = sizes["bins"], sizes["depth"], sizes["heads"], sizes["width"], FavorAttention

    def make():
        return CellTypeNet(GeneTransformer(torch.from_numpy(learned.vectors), *shape), 2)

    net = seeded(make, seed)
    if pretrained:
        net.transformer.load_state_dict(learned.state)
    n = freeze(net, "second_to_last")
    return AfterPrefix(net, n), n


def first_blocks(after: AfterPrefix, n: int, X) -> tuple[torch.Tensor, torch.Tensor]:
    """What the frozen blocks make of samples with all chosen genes: samples × (genes + 1) × dim, and the genes."""
    net = after.net
    tokens = Tokenizer(X.shape[1], net.transformer.values.num_embeddings - 2, logged=True)
    return prefixes(net, n, lambda rows, _: tokens(rows), X, torch.device("cpu"))


def learn(task: Task, seed: int, *, epochs: int, scouts: int, sizes=None, clusters: int = 8, **how) -> Learned:
    """Pre-train on the corpus of a task, then send scouts to pairs of clusters of it.

    `how` is ``scout_epochs`` and ``max_cells`` of each cluster.
    """
    sizes, cpu, start = SIZES | (sizes or {}), {}, time.process_time()
    vectors = coexpression_vectors(task.corpus, sizes["dim"], seed)
    model = ScBERT(**sizes, epochs=epochs, batch_size=32, random_state=seed).pretrain(task.corpus, vectors=vectors)
    cpu["pre-training"] = time.process_time() - start
    scores = model.masked_scores(task.X[task.samples.study != TRAIN])
    state = {k: v.clone() for k, v in model.pretrained_["state"].items()}
    learned = Learned(task, state, vectors, None, cpu, scores, 0.0, sizes)
    start = time.process_time()
    sent = sent_scouts(learned, seed, scouts, clusters, **how)
    cpu["scouts"] = time.process_time() - start
    accuracy = float(np.mean([1 - one.rows[-1]["val_loss"] for one in sent.histories]))
    return learned._replace(guide=Guide.of(sent).without(*HEAD), scouted=accuracy)


def sent_scouts(learned: Learned, seed: int, n_scouts: int, clusters: int, scout_epochs: int = 6, max_cells: int = 16):
    """Scouts of the pre-trained network on pairs of clusters of the corpus."""
    after, n = network(learned, True, seed)
    of = cluster(learned.task.corpus, clusters, seed=seed)
    rng = np.random.default_rng(seed)
    some = np.concatenate([rng.permutation(np.flatnonzero(of == k))[:max_cells] for k in np.unique(of)])
    columns = first_blocks(after, n, learned.task.corpus[some])

    def step(net, *batch):
        if net.training:
            return classify_step(net, *batch)
        # No scout stops early, so what stands for the loss of held-out samples may be what is reported of them.
        return (net(*batch[:-1]).argmax(1) != batch[-1]).float().mean()

    def new_head(net):
        for name, module in net.named_modules():
            if name.startswith(HEAD) and hasattr(module, "reset_parameters"):
                module.reset_parameters()

    config = Config(epochs=scout_epochs, batch_size=16, lr=1e-3, optimizer="adam", device="cpu")
    how = {"config": config, "new_head": new_head, "max_cells": max_cells, "seed": seed}
    return send_scouts(after, step, columns, of[some], n_scouts, **how)


def strategy_of(learned: Learned, arm: str, seed: int):
    """How an arm is fine-tuned."""
    if arm in (SCRATCH, PRETRAINED):
        return Full()
    guide = learned.guide.shuffled(seed) if arm == SHUFFLED else learned.guide
    return Guided(guide, "gradient" if arm == GRADIENT else "update")


class Course(NamedTuple):
    """A fine-tuning: right answers of the samples asked about (bool, looks × samples), weights moved, and seconds."""

    right: np.ndarray
    moved: torch.Tensor
    cpu: float


def course(learned: Learned, arm: str, train, asked, seed: int, *, epochs: int, lr: float, every: int) -> Course:
    """Fine-tune on some muscle samples, and look at others after every so many epochs, and after the last."""
    y = torch.from_numpy((learned.task.samples.y == "flight").astype(np.int64))
    after, n = network(learned, arm != SCRATCH, seed)
    begin = {k: w.clone() for k, w in trained(after.net.transformer).items()}
    x, genes = first_blocks(after, n, learned.task.X)
    seen, looked = [], 0.0

    def look(net, row):
        nonlocal looked
        if row["epoch"] % every == 0 or row["epoch"] == epochs:
            start = time.process_time()
            with torch.inference_mode():
                seen.append((net(x[asked], genes[asked]).argmax(1) == y[asked]).numpy())
            looked += time.process_time() - start

    start = time.process_time()
    config = Config(epochs=epochs, batch_size=len(train), lr=lr, optimizer="adam", seed=seed, device="cpu")
    columns, strategy = (x[train], genes[train], y[train]), strategy_of(learned, arm, seed)
    seeded(lambda: finetune(after, after.net.transformer, strategy, columns, config, callbacks=(look,)), seed)
    cpu = time.process_time() - start - looked
    moved = torch.cat([(w - begin[k]).flatten() for k, w in trained(after.net.transformer).items()])
    return Course(np.array(seen), moved, cpu)


def chosen_epoch(right: np.ndarray, last: bool = True) -> int:
    """The look with the most right answers, looks × samples; of equal ones the last, as in the code, or the first."""
    n = right.sum(1)
    best = np.flatnonzero(n == n.max())
    return int(best[-1] if last else best[0])


def of_classes(right, some, samples: Samples, rows) -> float:
    """Balanced accuracy of some of the rows: new mice are not as many of flight as of ground."""
    return np.mean([right[some & (samples.y[rows] == c)].mean() for c in np.unique(samples.y)])


def table_1(learned: Learned, seed: int, arms=ARMS, **how) -> list[dict]:
    """Train on OSD-105. Published: the epoch is chosen by OSD-104, all of OSD-99 is tested. Fair: last epoch, new mice.

    The mice of OSD-99 that are tested in the fair protocol are checked to be no training mice.
    """
    samples, rows, away = learned.task.samples, [], {}
    known, judge, test = (np.flatnonzero(samples.study == s) for s in (TRAIN, CHOOSE, TEST))
    new = ~np.isin(samples.mouse[test], samples.mouse[known])
    check_disjoint(samples.mouse[known], samples.mouse[test][new], what="animal")
    for arm in arms:
        one = course(learned, arm, known, np.concatenate([judge, test]), seed, **how)
        by, right = one.right[:, : len(judge)], one.right[:, len(judge) :]
        away[arm] = one.moved
        row = {"what": "table 1", "arm": arm, "n": len(test), "n_new": int(new.sum())}
        row |= {"chosen_by": int(by.sum(1).max())}
        row |= {"right": int(right[chosen_epoch(by)].sum()), "right_first": int(right[chosen_epoch(by, False)].sum())}
        row |= {"right_best": int(right.sum(1).max()), "right_last": int(right[-1].sum())}
        row |= {
            "right_new": int(right[-1][new].sum()),
            "balanced_new": float(of_classes(right[-1], new, samples, test)),
        }
        rows.append(row | {"cpu": one.cpu, "moved": float(one.moved.norm())})
    full = away.get(PRETRAINED)
    for row in rows if full is not None else ():
        row["cosine"] = float(torch.nn.functional.cosine_similarity(away[row["arm"]], full, dim=0))
        row["length"] = float(away[row["arm"]].norm() / full.norm())
    return rows


def two_shots(learned: Learned, seed: int, arms=(SCRATCH, PRETRAINED), **how) -> list[dict]:
    """One flight and one ground mouse of OSD-105 to train on, the ten others to test on."""
    samples, rng, rows = learned.task.samples, np.random.default_rng((seed, 2)), []
    known = np.flatnonzero(samples.study == TRAIN)
    two = np.array([rng.choice(known[samples.y[known] == c]) for c in ("flight", "ground")])
    asked = np.setdiff1d(known, two)
    check_disjoint(samples.mouse[two], samples.mouse[asked], what="animal")
    for arm in arms:
        one = course(learned, arm, two, asked, seed, **how)
        row = {"what": "two shots", "arm": arm, "right": int(one.right[-1].sum()), "n": len(asked)}
        rows.append(row | {"cpu": one.cpu})
    return rows


def mixed(learned: Learned, seed: int, arms=(SCRATCH,), **how) -> list[dict]:
    """OSD-105 and OSD-104 together, half to train on: samples at random, as the logs tell; and whole mice."""
    samples, rng, rows = learned.task.samples, np.random.default_rng((seed, 7)), []
    both = np.flatnonzero(np.isin(samples.study, [TRAIN, CHOOSE]))
    order = rng.permutation(both)
    train, test = grouped_split(samples.y[both], samples.mouse[both], 0.5, random_state=seed, what="animal")
    splits = {"samples": (order[: len(both) // 2], order[len(both) // 2 :]), "mice": (both[train], both[test])}
    for split, (mine, asked) in splits.items():
        met = float(np.isin(samples.mouse[asked], samples.mouse[mine]).mean())
        for arm in arms:
            one = course(learned, arm, mine, asked, seed, **how)
            row = {"what": "mixed", "split": split, "arm": arm, "right": int(one.right[-1].sum()), "n": len(asked)}
            rows.append(row | {"right_best": int(one.right.sum(1).max()), "met": met, "cpu": one.cpu})
    return rows


def all_rows(learned: Learned, _, seed: int, **how) -> list[dict]:
    """All that is measured of one seed, as :func:`shared.studies.run` takes a metric."""
    about = {"what": "learned", "arm": "", "scouted": learned.scouted, "corpus": len(learned.task.corpus)}
    about |= {f"masked_{k}": v for k, v in learned.scores.items()} | {f"cpu_{k}": v for k, v in learned.cpu.items()}
    about |= {"guide": learned.guide.mean()}
    return [about, *table_1(learned, seed, **how), *two_shots(learned, seed, **how), *mixed(learned, seed, **how)]


def parted(task: Task, seed: int):
    """A task as :func:`shared.studies.run` takes data: all is learned from it, and nothing beside it is tested."""
    return task, None
