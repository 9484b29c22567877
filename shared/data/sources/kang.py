"""Kang: blood cells of eight lupus patients, at rest and under interferon."""

import pandas as pd

from shared.data.io import names_of_files
from shared.data.io.tables import words
from shared.data.io.tenx import barcodes, counted, features
from shared.data.sources.common import assembled, facts, one_of_each, together
from shared.data.validate.names import distinct
from shared.data.validate.structure import column_of, fitted

FILES = {"genes": r"genes\.tsv", "cells": r"tsne\.df"}
HALVES = {"ctrl": "GSM2560248", "stim": "GSM2560249"}


def read(paths):
    """Blood cells at rest and stimulated by interferon beta (GSE96583, second batch), of six files in any order.

    Layout: ``GSM2560248_2.1.mtx.gz`` (at rest) and ``GSM2560249_2.2.mtx.gz`` (stimulated), genes × cells; a
    ``…_barcodes.tsv.gz`` for each; ``GSE96583_batch2.genes.tsv.gz`` (id, symbol) for both; and
    ``GSE96583_batch2.total.tsne.df.tsv.gz``, as R writes it, one row a cell in the order of the matrices: tsne1,
    tsne2, ind (patient), stim, cluster, cell (type), multiplets. R made row names unique by adding a digit, so a
    barcode of both halves reads …-1 in the first and …-11 in the second; the join is by stim and the barcode itself.

    ``X``: float32 CSR, counts. ``obs``: cell_type, condition (ctrl, stim), donor, batch (the condition), multiplets
    (singlet, doublet, ambs: 24,673 of 29,065 cells are one cell with a type), barcode. Names are ``condition_barcode``.
    The patients are the replicates, not the cells.
    """
    gene_path, path = one_of_each(paths, FILES)
    genes, parts = features(gene_path), []
    for condition, gsm in HALVES.items():
        files = one_of_each(paths, {"matrix": rf"{gsm}.*\.mtx", "barcodes": rf"{gsm}.*barcodes"})
        X, codes = counted(files[0]), barcodes(files[1])
        fitted(X, genes, codes, names_of_files([files[0], gene_path, files[1]]))
        known = {"condition": condition, "batch": condition, "barcode": codes}
        parts.append((X, genes["id"], pd.DataFrame(known, index=condition + "_" + codes), files[0].name))
    X, _, obs = together(parts)
    table = words(path, "\t")
    # Both the digit R added and the one before it are 1.
    core = column_of(table, "name", path.name).str.extract(r"^([ACGTN]+-1)1?$", expand=False)
    table.index = column_of(table, "stim", path.name) + "_" + core
    columns = {"cell_type": "cell", "donor": "ind", "multiplets": "multiplets"}
    found = facts(table, columns, obs.index, "the matrices", path, all_cells=True, only_cells=True)
    obs = pd.concat([obs, found], axis=1)[["cell_type", "condition", "donor", "batch", "multiplets", "barcode"]]
    names = distinct(genes["symbol"], genes["id"], gene_path.name)
    return assembled(X, names, obs, "counts", names_of_files(paths), var=genes)
