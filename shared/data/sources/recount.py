"""recount3: gene sums of one study, with its metadata and the annotation of genes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.genes.lists import shown
from shared.data.io.assemble import assembled, joined, labels, names_of_files
from shared.data.io.text import AGAIN, blocks, column, fields, opened, sound, stacked, words

AUC, LENGTH = "bc_auc.all_reads_all_bases", "star.average_mapped_length"
TARGET = 4e7  # reads of 100 bases that a sample is scaled to: what the recount3 package takes
WELCOME = {"title": "experiment_title", "sample_title": "sample_title", "experiment": "experiment_acc"}


def read(paths: list[Path], *, counts: str = "reads"):
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
    counts : {"reads", "scaled", "raw"}
        "reads": divided by the average mapped length and rounded, about the reads (or pairs) of each gene. "scaled":
        every run scaled to the same area under its coverage, as if it had 40 million reads of 100 bases, and rounded;
        runs are then comparable, and no longer counted. "raw": the sums.

    Returns
    -------
    AnnData
        ``X``: float32 CSR. ``obs``: study, batch (the study), title, sample_title, experiment, and the sample's
        attributes (``age;;P56|tissue;;brain`` gives age and tissue). ``var``: symbol and biotype with an annotation.
        Units: counts, or none for raw sums.

    Raises
    ------
    DataError
        If a file is damaged or missing, a run has no metadata, or its length or area is not a positive number.
    """
    require(OneOf("reads", "scaled", "raw"), counts=counts)
    path, metadata, quality, annotation = _sorted(paths, counts)
    with opened(path) as stream:
        line = stream.readline()
        while line.startswith(b"##"):
            line = stream.readline()
        corner, *runs = fields(line, "\t", path) or [""]
        if corner != "gene_id" or not runs:
            raise DataError(
                f"{path.name} has {corner[:40]!r} where gene_id and the runs are due: it is another file, {AGAIN}"
            )
        runs = pd.Index(runs, dtype=object)
        factor = _factor(quality, runs, counts, path)
        # Sums of whole coverage.
        sums = ((n, sound(b, "counts", n, path)) for n, b in blocks(stream, path, "\t", 1, 1 + len(runs)))
        names, X = stacked(sums if counts == "raw" else ((n, np.rint(b * factor)) for n, b in sums))
    genes = names[0]
    obs = _metadata(metadata, runs, path)
    var = None if annotation is None else _annotated(annotation, genes, path)
    units = "none" if counts == "raw" else "counts"
    return assembled(X.T.tocsr(), genes, obs, units, names_of_files(paths), var=var)


def _sorted(paths, counts):
    rules = {"gtf": r"\.gtf(\.gz)?$", "quality": r"recount_qc\..*MD", "sums": r"gene_sums\.", "metadata": ""}
    found: dict = {}
    for path in paths:
        kind = next(kind for kind, rule in rules.items() if re.search(rule, path.name))
        if kind in found:
            raise DataError(
                f"{path.name} and {found[kind].name} are both taken for {kind}: give the files of one study"
            )
        found[kind] = path
    lost = [k for k in ("sums", "metadata", "quality") if k not in found and not (k == "quality" and counts == "raw")]
    if lost:
        raise DataError(f"{names_of_files(paths)}: there is no file of {shown(lost)}, which counts={counts!r} needs")
    return found["sums"], found["metadata"], found.get("quality"), found.get("gtf")


def _table(path, runs, matrix):
    table = words(path, "\t", quoted=False)
    table = table.set_axis(pd.Index(column(table, "external_id", path)), axis=0)
    return joined(runs, table, matrix.name, path.name, need_all=True)


def _factor(path, runs, counts, matrix):
    if counts == "raw":
        return None
    table = _table(path, runs, matrix)
    name = LENGTH if counts == "reads" else AUC
    value = pd.to_numeric(column(table, name, path), errors="coerce").to_numpy(dtype=float)
    bad = ~(np.isfinite(value) & (value > 0))
    if bad.any():
        raise DataError(
            f"{path.name} gives no positive {name} for {shown(runs[bad])}: drop those runs, or read the raw sums"
        )
    return 1 / value if counts == "reads" else TARGET / value


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
