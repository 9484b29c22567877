"""Kang: blood cells of eight lupus patients, at rest and under interferon."""

from __future__ import annotations

import re

import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import shown
from shared.data.io import names_of_files
from shared.data.io.tables import AGAIN, words
from shared.data.io.tenx import barcodes, counted, distinct, features, fitted
from shared.data.sources.common import assembled, column, joined, labels

HALVES = {"ctrl": "GSM2560248", "stim": "GSM2560249"}


def read(paths):
    """Blood cells at rest and stimulated by interferon beta (GSE96583, second batch).

    Layout: ``GSM2560248_2.1.mtx.gz`` (at rest) and ``GSM2560249_2.2.mtx.gz`` (stimulated), genes × cells; a
    ``…_barcodes.tsv.gz`` for each; ``GSE96583_batch2.genes.tsv.gz`` (id, symbol) for both; and
    ``GSE96583_batch2.total.tsne.df.tsv.gz``, as R writes it, one row a cell in the order of the matrices: tsne1,
    tsne2, ind (patient), stim, cluster, cell (type), multiplets. R made row names unique by adding a digit, so a
    barcode of both halves reads …-1 in the first and …-11 in the second; the join is by stim and the barcode itself.

    Parameters
    ----------
    paths : list of Path
        The six files in any order.

    Returns
    -------
    AnnData
        ``X``: float32 CSR, counts. ``obs``: cell_type, condition (ctrl, stim), donor, batch (the condition),
        multiplets (singlet, doublet, ambs: 24,673 of 29,065 cells are one cell with a type), barcode. Names are
        ``condition_barcode``. The patients are the replicates, not the cells.

    Raises
    ------
    DataError
        If a file is missing or damaged, sizes do not match, or the table does not name the cells of the matrices.
    """
    from scipy import sparse

    gene_path, table_path = _one(paths, r"genes\.tsv"), _one(paths, r"tsne\.df")
    genes, parts, cells = features(gene_path), [], []
    for condition, gsm in HALVES.items():
        matrix_path, codes_path = _one(paths, rf"{gsm}.*\.mtx"), _one(paths, rf"{gsm}.*barcodes")
        X, codes = counted(matrix_path), barcodes(codes_path)
        fitted(X, genes, codes, names_of_files([matrix_path, gene_path, codes_path]))
        parts.append(X)
        cells.append(pd.DataFrame({"condition": condition, "barcode": codes}, index=condition + "_" + codes))
    obs = pd.concat(cells)
    table = words(table_path, "\t")
    # Both the digit R added and the one before it are 1.
    core = column(table, "name", table_path).str.extract(r"^([ACGTN]+-1)1?$", expand=False)
    if core.isna().any():
        raise DataError(
            f"{table_path.name} has row names that are no barcodes ({shown(table['name'][core.isna()])}): {AGAIN}"
        )
    table.index = pd.Index(column(table, "stim", table_path) + "_" + core, dtype=object)
    found = {"cell_type": "cell", "donor": "ind", "multiplets": "multiplets"}
    picked = pd.DataFrame({new: column(table, old, table_path) for new, old in found.items()})
    picked = joined(obs.index, picked, "the matrices", table_path.name, need_all=True)
    if len(table) != len(obs):
        raise DataError(
            f"{table_path.name} has {len(table):,} rows for {len(obs):,} cells: the files are not of one release"
        )
    obs = pd.concat([labels(picked), obs], axis=1).assign(batch=obs["condition"])
    obs = obs[["cell_type", "condition", "donor", "batch", "multiplets", "barcode"]]
    names = distinct(genes["symbol"], genes["id"], gene_path.name)
    return assembled(sparse.vstack(parts, format="csr"), names, obs, "counts", names_of_files(paths), var=genes)


def _one(paths, rule):
    found = [p for p in paths if re.search(rule, p.name)]
    if len(found) != 1:
        raise DataError(f"{names_of_files(paths)}: there are {len(found)} files named like {rule}, one is needed")
    return found[0]
