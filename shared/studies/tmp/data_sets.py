"""Studies on the genes that they share: the three pairs of source and target, and classes and patients held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import sparse

from shared.data import load
from shared.data.cache import in_mirror
from shared.data.errors import DataError
from shared.nn.episodes import unit_range
from shared.preprocess import log_normalize

# Compact tables of public studies, in the folder that BORROWED_MIRROR names: no catalogue address serves them.
FILES = {
    "tumours": "tcga_11cancers_paired_1204.h5ad",
    "Baron": "pancreas_baron_human_mouse_350.h5ad",
    "Xin": "pancreas_xin_674x1075.h5ad",
}


class Pair(NamedTuple):
    """A source and two studies of the target, on the same genes; each part is ``(X, y)``.

    `held_out` has what the pre-training never sees: classes of the source, or patients.
    """

    source: tuple
    held_out: tuple
    few: tuple
    test: tuple


def on_same_genes(source, studies: Mapping, n_genes: int = 600):
    """Source and studies on the genes they share, the most varied of the source first, each profile scaled to [0, 1].

    Parameters
    ----------
    source : (AnnData, str)
        Log expression or z-scores, and the column of ``obs`` with the labels.
    studies : dict of name to (AnnData, str)
        Values may have another unit: each profile is scaled by its own range.
    n_genes : int
        At most so many.

    Returns
    -------
    genes : list of str
    source : (X, y)
    studies : dict of name to (X, y)

    Raises
    ------
    shared.data.errors.DataError
        If fewer than two genes are shared.
    """
    everywhere = [set(adata.var_names) for adata, _ in studies.values()]
    common = [g for g in source[0].var_names if all(g in names for names in everywhere)]
    if len(common) < 2:
        raise DataError(f"{len(common)} genes are in all studies: are they named by symbols everywhere?")
    X = source[0][:, common].X
    spread = np.asarray(X.todense() if sparse.issparse(X) else X).std(0)
    genes = [common[i] for i in np.argsort(-spread, kind="stable")[:n_genes]]

    def read(adata, column):
        X = unit_range(adata[:, genes].X)
        return (X.toarray() if sparse.issparse(X) else X), adata.obs[column].to_numpy(str)

    return genes, read(*source), {name: read(*study) for name, study in studies.items()}


def hold_out_classes(y, n: int, seed: int = 0) -> np.ndarray:
    """Rows of `n` classes drawn at random, as a mask: what a pre-training never sees."""
    return np.isin(y, np.random.default_rng(seed).permutation(np.unique(y))[:n])


def mirrored() -> dict:
    """The tables of :data:`FILES`, by name, ready to be compared.

    Raises
    ------
    shared.data.errors.DataError
        If one of them does not lie in the mirror: a study of fewer pairs would be recorded as the whole.
    """
    paths = {name: in_mirror(file) for name, file in FILES.items()}
    if missing := [FILES[name] for name, lie in paths.items() if not lie]:
        raise DataError(
            f"{', '.join(missing)}: not in the folders of BORROWED_MIRROR, and no address serves them. Name their "
            "folder there, or take the profile 'smoke', which goes without; recorded results stay as they are"
        )
    found = {name: load(lie[0]) for name, lie in paths.items()}
    tumours, islets = found["tumours"], found["Baron"]
    tumours.X = tumours.X.clip(-2)  # the floor of nine of the eleven cancers
    tumours.obs["kind"] = [" ".join(map(str, row)) for row in tumours.obs[["cancer", "sample_type"]].to_numpy()]
    found["Baron"] = human = islets[islets.obs["species"] == "human"].copy()
    human.X = log_normalize(human.X)
    return found


def pairs(lines, blood, others: Mapping, n_genes: int = 600) -> dict[str, Pair]:
    """The pairs that can be made of cell lines, blood, and whatever :func:`mirrored` found.

    Parameters
    ----------
    lines : AnnData
        The cell lines of ``gdsc``: subtypes of ten lines or more are kept, and ten of them held out.
    blood : AnnData
        Log values, with ``cell_type`` and ``run``: run 1 to fine-tune on, run 2 to evaluate on.
    others : dict of name to AnnData
        Tumours of eleven cancers with their normal tissue, of which three patients in ten are held out; two studies of
        islets, of which the types that both have are kept.
    n_genes : int
        At most so many, see :func:`on_same_genes`.
    """
    runs = {part: (blood[blood.obs["run"] == run], "cell_type") for part, run in (("few", "run1"), ("test", "run2"))}
    lines = lines[lines.obs["subtype"].map(lines.obs["subtype"].value_counts()).astype(float) >= 10]
    held_out = hold_out_classes(lines.obs["subtype"].to_numpy(str), 10)
    found = {"cell lines to blood": _pair(lines, "subtype", held_out, runs, n_genes)}
    if "tumours" in others:
        tumours = others["tumours"]
        patients = tumours.obs["patient"].to_numpy(str)
        drawn = np.random.default_rng(0).permutation(np.unique(patients))
        held_out = np.isin(patients, drawn[: round(0.3 * len(drawn))])
        found["tumours to blood"] = _pair(tumours, "kind", held_out, runs, n_genes)
        if {"Baron", "Xin"} <= others.keys():
            types = set(others["Baron"].obs["cell_type"]) & set(others["Xin"].obs["cell_type"])
            islets = {
                part: (others[name][others[name].obs["cell_type"].isin(types)], "cell_type")
                for part, name in (("few", "Baron"), ("test", "Xin"))
            }
            found["tumours to islets"] = _pair(tumours, "kind", held_out, islets, n_genes)
    return found


def _pair(source, label, held_out, target, n_genes):
    parts = {"held_out": (source[held_out], label)} | target
    _, known, parts = on_same_genes((source[~held_out], label), parts, n_genes)
    return Pair(known, **parts)
