"""recount3: gene sums of one study, with its metadata and the annotation of genes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import shown
from shared.data.io import names_of_files
from shared.data.io.tables import AGAIN, blocks, fields, opened, sound, words
from shared.data.sources.common import assembled, column, joined, labels, stacked

LENGTH = "star.average_mapped_length"
WELCOME = {"title": "experiment_title", "sample_title": "sample_title", "experiment": "experiment_acc"}


def read(paths: list[Path]):
    """Samples × genes of one study.

    Layout, all gzipped, tabs: ``sra.gene_sums.<study>.<annotation>.gz`` begins with comments (``##annotation=M023``),
    then a header ``gene_id`` and the runs, one row a gene. ``sra.sra.<study>.MD.gz`` has one row a run (external_id,
    study, experiment_title, sample_attributes ...), ``sra.recount_qc.<study>.MD.gz`` the quality of each
    (``bc_auc.all_reads_all_bases``, ``star.average_mapped_length``). The numbers are no reads: they are the coverage
    summed over a gene's bases, so a read of 100 bases counts a hundred.

    Parameters
    ----------
    paths : list of Path
        In any order: gene sums, metadata, quality, perhaps the annotation (``…gene_sums.<annotation>.gtf.gz``).

    Returns
    -------
    AnnData
        ``X``: float32 CSR, counts: the sums divided by the average mapped length and rounded, about the reads (or
        pairs) of each gene. ``obs``: study, batch (the study), title, sample_title, experiment, and the sample's
        attributes (``age;;P56|tissue;;brain`` gives age and tissue). ``var``: symbol and biotype with an annotation.

    Raises
    ------
    DataError
        If a file is damaged or missing, a run has no metadata, or its length or area is not a positive number.
    """
    path, metadata, quality, annotation = _sorted(paths)
    with opened(path) as stream:
        line = stream.readline()
        while line.startswith(b"##"):
            line = stream.readline()
        corner, *runs = fields(line, "\t") or [""]
        if corner != "gene_id" or not runs:
            raise DataError(
                f"{path.name} has {corner[:40]!r} where gene_id and the runs are due: it is another file, {AGAIN}"
            )
        runs = pd.Index(runs, dtype=object)
        length = _length(quality, runs, path)
        # Sums of whole coverage.
        sums = ((n, sound(b, "counts", n, path)) for n, b in blocks(stream, path, "\t", 1, runs))
        names, X = stacked((n, np.rint(b / length)) for n, b in sums)
    genes = names[0]
    obs = _metadata(metadata, runs, path)
    var = None if annotation is None else _annotated(annotation, genes, path)
    return assembled(X.T.tocsr(), genes, obs, "counts", names_of_files(paths), var=var)


def _sorted(paths):
    rules = {"gtf": r"\.gtf(\.gz)?$", "quality": r"recount_qc\..*MD", "sums": r"gene_sums\.", "metadata": ""}
    found: dict = {}
    for path in paths:
        kind = next(kind for kind, rule in rules.items() if re.search(rule, path.name))
        if kind in found:
            raise DataError(
                f"{path.name} and {found[kind].name} are both taken for {kind}: give the files of one study"
            )
        found[kind] = path
    lost = [k for k in ("sums", "metadata", "quality") if k not in found]
    if lost:
        raise DataError(f"{names_of_files(paths)}: there is no file of {shown(lost)}, and all three are needed")
    return found["sums"], found["metadata"], found["quality"], found.get("gtf")


def _table(path, runs, matrix):
    table = words(path, "\t", quoted=False)
    table = table.set_axis(pd.Index(column(table, "external_id", path)), axis=0)
    return joined(runs, table, matrix.name, path.name, need_all=True)


def _length(path, runs, matrix):
    value = pd.to_numeric(column(_table(path, runs, matrix), LENGTH, path), errors="coerce").to_numpy(dtype=float)
    bad = ~(np.isfinite(value) & (value > 0))
    if bad.any():
        raise DataError(f"{path.name} gives no positive {LENGTH} for {shown(runs[bad])}: it is damaged, {AGAIN}")
    return value


def _metadata(path, runs, matrix):
    table = _table(path, runs, matrix)
    obs = pd.DataFrame({"study": column(table, "study", path), "batch": column(table, "study", path)})
    for new, old in WELCOME.items():
        if old in table:
            obs[new] = labels(table[old].to_numpy()).to_numpy()
    if "sample_attributes" in table:
        said = [dict(p.split(";;", 1) for p in v.split("|") if ";;" in p) for v in table["sample_attributes"]]
        for name in dict.fromkeys(k for row in said for k in row):
            new = re.sub(r"\W+", "_", name.strip().lower()).strip("_")
            if new and new not in obs:
                obs[new] = labels([row.get(name) for row in said]).to_numpy()
    return obs


def _annotated(path, genes, matrix):
    """Symbol and biotype of each gene, from the lines of genes in a .gtf."""
    with opened(path) as stream:
        lines = [line for line in stream if b"\tgene\t" in line]
    text = pd.Series([line.decode("utf-8") for line in lines], dtype=object)
    if text.empty:
        raise DataError(f"{path.name} has no lines of genes: it is another file, or was cut short; {AGAIN}")
    parts = {"gene_id": "gene_id", "symbol": "gene_name", "biotype": "gene_(?:type|biotype)"}
    table = pd.DataFrame({new: text.str.extract(rf'{key} "([^"]*)"', expand=False) for new, key in parts.items()})
    table = table.set_index("gene_id")
    lost = ~genes.isin(table.index)
    if lost.mean() > 0.5:
        raise DataError(
            f"{path.name} knows {shown(genes[lost])} of {matrix.name} not: it is another release of the annotation"
        )
    return table[~table.index.duplicated()].reindex(genes).reset_index(drop=True).astype(object).fillna("")
