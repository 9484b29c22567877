"""Matrix Market files and what stands beside them: 10x Genomics folders, and Kang's lupus patients."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io.assemble import assembled, distinct, joined, labels, names_of_files, only, plain
from shared.data.io.text import AGAIN, blocks, column, opened, separator_of, sound, words

BARCODE = r"(?:.*[#_:])?[ACGTN]{8,}(?:-\d+)?"
KINDS = {  # the kind of a file by how its name ends
    "matrix": re.compile(r"(matrix|\.mtx|^mtx)(\.mtx)?(\.gz)?$", re.IGNORECASE),
    "genes": re.compile(r"(genes|features)\.tsv(\.gz)?$", re.IGNORECASE),
    "barcodes": re.compile(r"barcodes\.tsv(\.gz)?$", re.IGNORECASE),
}


HEAD = re.compile(rb"%%MatrixMarket\s+matrix\s+coordinate\s+(integer|real)\s+general\s*", re.IGNORECASE)
SIZES = re.compile(rb"\s*(\d{1,9})\s+(\d{1,9})\s+(\d{1,12})\s*")


def counted(path, units: str = "counts"):
    """A Matrix Market file, features × cells, as float32 CSR of cells × features.

    SciPy's own reader writes outside its memory where the head of a damaged file says fewer entries than follow, so the
    entries are read as a table.

    Raises
    ------
    DataError
        If the file is damaged, holds an entry twice, or a value that is no count.
    """
    from scipy import sparse

    parts = []
    with opened(path) as stream:
        if not HEAD.fullmatch(stream.readline(200)):
            raise DataError(
                f"{path.name} does not begin as a Matrix Market file of coordinates (integer or real, general): "
                f"it is another file, {AGAIN}"
            )
        line = stream.readline()
        while line.startswith(b"%"):
            line = stream.readline()
        stated = SIZES.fullmatch(line)
        if not stated:
            raise DataError(f"{path.name} does not state its size above its entries: it is damaged, {AGAIN}")
        n_rows, n_columns, n = map(int, stated.groups())
        for names, block in blocks(stream, path, r"\s+", 0, 3):
            sound(block[:, 2], units, names, path)
            at = block[:, :2]
            if (at != np.floor(at)).any() or (at < 1).any() or (at > (n_rows, n_columns)).any():
                raise DataError(
                    f"{path.name} has entries outside its {n_rows:,} × {n_columns:,}: it is damaged, {AGAIN}"
                )
            parts.append((*(at.T - 1).astype(np.int32), block[:, 2].astype(np.float32)))
    rows, columns, values = map(np.concatenate, zip(*parts))
    if len(values) != n:
        raise DataError(f"{path.name} says it has {n:,} entries, and has {len(values):,}: it was cut short, {AGAIN}")
    made = sparse.csr_matrix((values, (columns, rows)), shape=(n_columns, n_rows))
    if made.nnz != n:
        raise DataError(f"{path.name} holds entries twice ({n - made.nnz:,} of them): it is damaged, {AGAIN}")
    made.eliminate_zeros()
    return made


def features(path) -> pd.DataFrame:
    """``genes.tsv`` (version 2: id, symbol) or ``features.tsv`` (version 3: id, symbol, type)."""
    table = words(path, "\t", heading=False, quoted=False)
    if not 1 <= table.shape[1] <= 6:
        raise DataError(
            f"{path.name} has {table.shape[1]} columns where an id, a symbol and perhaps a type are due: {AGAIN}"
        )
    table = table.iloc[:, :3]
    table.columns = ["id", "symbol", "feature_type"][: table.shape[1]]
    table = table if "symbol" in table else table.assign(symbol=table["id"])
    odd = table[["id", "symbol"]].apply(lambda c: (c == "") | c.str.contains('"')).any(axis=1)
    if odd.any():
        raise DataError(
            f"{path.name} has names that are empty or hold quotation marks ({shown(table['id'][odd])}): {AGAIN}"
        )
    return table


def barcodes(path) -> pd.Index:
    """One barcode a line."""
    table = words(path, "\t", heading=False, quoted=False)
    if table.shape[1] != 1:
        raise DataError(f"{path.name} has {table.shape[1]} columns where one, of barcodes, is due: it is another file")
    return pd.Index(table["0"], dtype=object)


def fitted(X, genes: pd.DataFrame, cells: pd.Index, what: str) -> None:
    """Refuse names that do not fit the matrix, or stand in each other's place."""
    if X.shape == (len(cells), len(genes)):
        # A square matrix has room for its names either way.
        if _barcodes(genes["id"]) > 0.5 > _barcodes(cells):
            raise DataError(f"{what}: the genes look like barcodes, and the barcodes do not: the two files are swapped")
        return
    swapped = X.shape == (len(genes), len(cells))
    cure = "the two files are swapped, or the matrix lies on its side" if swapped else "they do not belong together"
    raise DataError(
        f"{what}: the matrix is {X.shape[1]:,} genes × {X.shape[0]:,} cells, and there are names of {len(genes):,} "
        f"genes and {len(cells):,} cells: {cure}, or one was cut short"
    )


def _barcodes(names) -> float:
    return pd.Series(names, dtype=object).astype(str).str.fullmatch(BARCODE).mean()


def named(genes: pd.DataFrame, names: str, what: str) -> tuple[np.ndarray, pd.DataFrame]:
    """The names of the genes by choice, and ``var`` with the others."""
    require(OneOf("symbol", "id"), names=names)
    if names == "id" or (genes["id"] == genes["symbol"]).all():
        return genes["id"].to_numpy(), genes
    return distinct(genes["symbol"], genes["id"], what), genes


def tenx(
    paths: list[Path],
    *,
    names: str = "symbol",
    feature_type: str | None = "Gene Expression",
    barcode: str | None = None,
    obs: dict | None = None,
    batch: str | None = None,
):
    """What 10x Genomics' software writes: a matrix, its genes, its barcodes, and perhaps a table of labels.

    Layout, gzipped or not: ``matrix.mtx`` (Matrix Market, genes × cells, whole numbers); version 2 ``genes.tsv`` (id,
    symbol), version 3 ``features.tsv.gz`` (id, symbol, type: with antibodies the file holds several types);
    ``barcodes.tsv``. For Zheng's 68,579 cells the labels are ``68k_pbmc_barcodes_annotation.tsv`` (TSNE.1, TSNE.2,
    barcodes, celltype): no cell was sorted, a label is the sorted population the cell correlates with best.

    Parameters
    ----------
    paths : list of Path
        The three files in any order, told apart by their names; any other file is a table of labels with a header.
    names : {"symbol", "id"}
        What names the genes. A symbol that two genes share (34 do in the 2016 human genome) stands for neither: both
        keep their id. ``var`` has both.
    feature_type : str, optional
        Version 3: the kind to keep; None keeps all.
    barcode : str, optional
        Column of the labels that holds the barcodes; the one called so where not given.
    obs : dict, optional
        Column of ``obs`` to column of the labels; ``cell_type`` is found by itself where not given.
    batch : str, optional
        What to write as batch.

    Returns
    -------
    AnnData
        ``X``: float32 CSR, counts. ``obs``: cell_type where there are labels; missing for a barcode without one.

    Raises
    ------
    DataError
        If a file is damaged or missing, sizes do not match, genes and barcodes are swapped, or no label fits.
    """
    found, others = {}, []
    for path in paths:
        kind = next((k for k, rule in KINDS.items() if rule.search(path.name)), None)
        if kind in found:
            raise DataError(f"{path.name} and {found[kind].name} are both {kind}: give the files of one folder")
        if kind:
            found[kind] = path
        else:
            others.append(path)
    lost = [k for k in KINDS if k not in found]
    if lost:
        raise DataError(f"{names_of_files(paths)}: there is no file of {shown(lost)}; a 10x folder has all three")
    what = found["matrix"].name
    X, genes, cells = counted(found["matrix"]), features(found["genes"]), barcodes(found["barcodes"])
    fitted(X, genes, cells, f"{what} with {found['genes'].name} and {found['barcodes'].name}")
    X, genes, notes = chosen(X, genes, feature_type, what)
    gene_names, var = named(genes, names, found["genes"].name)
    table = pd.DataFrame(index=cells)
    for path in others:
        picked = _labels(path, cells, barcode, obs, found["barcodes"])
        table[list(picked)] = picked.to_numpy()
    if batch:
        table["batch"] = batch
    return assembled(X, gene_names, table, "counts", names_of_files(paths), var=var, notes=notes)


def chosen(X, genes, feature_type, what):
    """The features of one type, and a note on what was left out."""
    if feature_type is None or "feature_type" not in genes or (genes["feature_type"] == feature_type).all():
        return X, genes, []
    kept = (genes["feature_type"] == feature_type).to_numpy()
    if not kept.any():
        types = shown(genes["feature_type"].unique())
        raise DataError(f"{what} has no features of type {feature_type!r}; it has {types}: name one as feature_type")
    left = shown(genes.loc[~kept, "feature_type"].unique())
    notes = [f"{many(int((~kept).sum()), 'feature')} of other types left out ({left})"]
    return X[:, kept], genes[kept].reset_index(drop=True), notes


def _labels(path, cells, barcode, obs, barcodes_path):
    table = words(path, separator_of(path))
    called = table.columns.astype(str).map(plain)
    if barcode is None:
        barcode = next(
            (c for c, p in zip(table, called) if p in ("barcode", "barcodes", "cell", "cell_id", "name")), None
        )
    if obs is None:
        found = [c for c, p in zip(table, called) if p in ("celltype", "cell_type", "label", "labels")]
        obs = {"cell_type": found[0]} if len(found) == 1 else None
    if barcode is None or not obs:
        raise DataError(
            f"{path.name} has columns {shown(table.columns)}: say which holds the barcodes (barcode) and which the "
            "labels (obs)"
        )
    picked = labels(pd.DataFrame({new: column(table, old, path) for new, old in obs.items()}))
    picked.index = pd.Index(column(table, barcode, path), dtype=object)
    return joined(cells, picked, barcodes_path.name, path.name)


# Kang: eight patients, at rest and under interferon


def kang(paths: list[Path], *, names: str = "symbol", keep: str = "all"):
    """Blood cells of eight lupus patients, at rest and stimulated by interferon beta (GSE96583, second batch).

    Layout: ``GSM2560248_2.1.mtx.gz`` (at rest) and ``GSM2560249_2.2.mtx.gz`` (stimulated), genes × cells; a
    ``…_barcodes.tsv.gz`` for each; ``GSE96583_batch2.genes.tsv.gz`` (id, symbol) for both; and
    ``GSE96583_batch2.total.tsne.df.tsv.gz``, as R writes it, one row a cell in the order of the matrices: tsne1,
    tsne2, ind (patient), stim, cluster, cell (type), multiplets. R made row names unique by adding a digit, so a
    barcode of both halves reads …-1 in the first and …-11 in the second; the join is by stim and the barcode itself.

    Parameters
    ----------
    paths : list of Path
        The six files in any order.
    names : {"symbol", "id"}
        What names the genes; see :func:`tenx`.
    keep : {"all", "singlets"}
        With "singlets", cells that are one cell by genotype and have a type (24,673 of 29,065).

    Returns
    -------
    AnnData
        ``X``: float32 CSR, counts. ``obs``: cell_type, condition (ctrl, stim), donor, batch (the condition),
        multiplets, barcode. Names are ``condition_barcode``. The patients are the replicates, not the cells.

    Raises
    ------
    DataError
        If a file is missing or damaged, sizes do not match, or the table does not name the cells of the matrices.
    """
    from scipy import sparse

    require(OneOf("all", "singlets"), keep=keep)
    halves = {"ctrl": "GSM2560248", "stim": "GSM2560249"}
    files = {(c, k): _one(paths, rf"{gsm}.*{end}", k) for c, gsm in halves.items() for k, end in ENDS.items()}
    gene_path, table_path = _one(paths, r"genes\.tsv", "genes"), _one(paths, r"tsne\.df", "the table of cells")
    genes, parts, cells = features(gene_path), [], []
    for condition in halves:
        X, codes = counted(files[condition, "matrix"]), barcodes(files[condition, "barcodes"])
        fitted(X, genes, codes, names_of_files([files[condition, "matrix"], gene_path, files[condition, "barcodes"]]))
        parts.append(X)
        cells.append(pd.DataFrame({"condition": condition, "barcode": codes}, index=condition + "_" + codes))
    obs = pd.concat(cells)
    table = words(table_path, "\t", corner=False)
    # Both the digit R added and the one before it are 1.
    core = table["name"].str.extract(r"^([ACGTN]+-1)1?$", expand=False)
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
    gene_names, var = named(genes, names, gene_path.name)
    made = assembled(sparse.vstack(parts, format="csr"), gene_names, obs, "counts", names_of_files(paths), var=var)
    good = (made.obs["multiplets"] == "singlet") & made.obs["cell_type"].notna()
    return made if keep == "all" else only(made, good, "cell", "left out that are several cells or have no type")


ENDS = {"matrix": r"\.mtx", "barcodes": r"barcodes"}


def _one(paths, rule, what):
    found = [p for p in paths if re.search(rule, p.name)]
    if len(found) != 1:
        raise DataError(
            f"{names_of_files(paths)}: there are {len(found)} files for {what} (named like {rule}), one is needed"
        )
    return found[0]
