"""recount3: gene sums of one study, with its metadata and the annotation of genes."""

import re

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import shown
from shared.data.io import names_of_files
from shared.data.io.tables import AGAIN, blocks, joined, opened, words
from shared.data.sources.common import assembled, facts, header, labels, one_of_each, plain

FILES = {
    "sums": r"gene_sums\..*(?<!\.gtf)(?<!\.gtf\.gz)$",
    "metadata": r"^(?!.*(gene_sums|recount_qc)\.).*$",
    "quality": r"recount_qc\..*MD",
    "annotation": r"\.gtf(\.gz)?$",
}
LENGTH = "star.average_mapped_length"
COLUMNS = {
    "study": "study",
    "title": ("experiment_title",),
    "sample_title": ("sample_title",),
    "experiment": ("experiment_acc",),
    "attributes": ("sample_attributes",),
}


def read(paths):
    """Samples × genes of one study: gene sums, metadata, quality and perhaps the annotation, in any order.

    Layout, all gzipped, tabs: ``sra.gene_sums.<study>.<annotation>.gz`` begins with comments (``##annotation=M023``),
    then a header ``gene_id`` and the runs, one row a gene. ``sra.sra.<study>.MD.gz`` has one row a run (external_id,
    study, experiment_title, sample_attributes ...), ``sra.recount_qc.<study>.MD.gz`` the quality of each
    (``bc_auc.all_reads_all_bases``, ``star.average_mapped_length``); the annotation is
    ``…gene_sums.<annotation>.gtf.gz``. The numbers are no reads: they are the coverage summed over a gene's bases, so a
    read of 100 bases counts a hundred.

    ``X``: float32 CSR, counts: the sums divided by the average mapped length, a positive number, and rounded, about the
    reads (or pairs) of each gene. ``obs``: study, batch (the study), title, sample_title, experiment, and the sample's
    attributes (``age;;P56|tissue;;brain`` gives age and tissue). ``var``: symbol and biotype with an annotation.
    """
    path, metadata, quality, annotation = one_of_each(paths, FILES, optional=["annotation"])
    with opened(path) as stream:
        line = stream.readline()
        while line.startswith(b"##"):
            line = stream.readline()
        runs = header(line, ["gene_id"], path)
        length = pd.to_numeric(_facts(quality, {"length": LENGTH}, runs, path)["length"], errors="coerce").astype(float)
        bad = ~((length > 0) & np.isfinite(length))
        if bad.any():
            raise DataError(f"{quality.name} gives no positive {LENGTH} for {shown(runs[bad])}: it is damaged, {AGAIN}")
        # Sums of whole coverage.
        sums = blocks(stream, path, "\t", 1, runs, "counts")
        names, X = joined(((n, np.rint(b / length.to_numpy())) for n, b in sums), np.float32, dense=False)
    obs = _facts(metadata, COLUMNS, runs, path)
    obs.insert(1, "batch", obs["study"])
    if "attributes" in obs:
        said = [re.findall(r"(?:^|\|)(.+?);;([^|]*)", words) for words in obs.pop("attributes").fillna("")]
        told = labels(pd.DataFrame([{plain(k): v for k, v in pairs} for pairs in said], runs, dtype=object))
        obs = pd.concat([obs, told[[name for name in told if name and name not in obs]]], axis=1)
    var = None if annotation is None else _annotated(annotation, names[0], path)
    return assembled(X.T.tocsr(), names[0], obs, "counts", names_of_files(paths), var=var)


def _facts(path, columns, runs, matrix):
    table = words(path, "\t", quoted=False)
    return facts(table, columns, runs, matrix.name, path, key="external_id", all_cells=True)


def _annotated(path, genes, matrix):
    with opened(path) as stream:
        text = pd.Series([line.decode("utf-8") for line in stream if b"\tgene\t" in line], dtype=object)
    parts = {"gene_id": "gene_id", "symbol": "gene_name", "biotype": "gene_(?:type|biotype)"}
    table = pd.DataFrame({new: text.str.extract(rf'{key} "([^"]*)"', expand=False) for new, key in parts.items()})
    table = table.drop_duplicates("gene_id").set_index("gene_id")
    lost = ~genes.isin(table.index)
    if lost.mean() > 0.5:
        raise DataError(f"{path.name} knows no {shown(genes[lost])} of {matrix.name}: it is another release")
    return table.reindex(genes).reset_index(drop=True).astype(object).fillna("")
