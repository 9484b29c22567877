"""What 10x Genomics' software writes: a folder of Matrix Market and names, or an HDF5 file of two versions."""

import re

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io import named, names_of_files
from shared.data.io.tables import AGAIN, BLOCK, opened, refused, words
from shared.data.validate.names import distinct
from shared.data.validate.structure import fitted
from shared.data.validate.values import sound

KINDS = {  # the kind of a file by how its name ends
    "matrix": re.compile(r"(matrix|\.mtx|^mtx)(\.mtx)?(\.gz)?$", re.IGNORECASE),
    "genes": re.compile(r"(genes|features)\.tsv(\.gz)?$", re.IGNORECASE),
    "barcodes": re.compile(r"barcodes\.tsv(\.gz)?$", re.IGNORECASE),
}
HEAD = re.compile(rb"%%MatrixMarket\s+matrix\s+coordinate\s+(integer|real)\s+general\s*", re.IGNORECASE)
SIZES = re.compile(rb"\s*(\d{1,9})\s+(\d{1,9})\s+(\d{1,12})\s*")
GENES = "Gene Expression"


def kind_of(path) -> str | None:
    """``"matrix"``, ``"genes"`` or ``"barcodes"`` by a file's name; None for another one."""
    return next((kind for kind, rule in KINDS.items() if rule.search(path.name)), None)


def counted(path, notes: list | None = None):
    """A Matrix Market file of counts, features × cells, as CSR of cells × features; what was summed goes to `notes`.

    SciPy's reader would take 1.5 for 1 where whole numbers are stated. :class:`DataError` if the file is damaged, holds
    a value that is no count, or, without `notes`, two of one place.
    """
    with opened(path, whole=False) as stream:  # the number of entries is stated
        head, size = stream.readline(200), next((line for line in stream if not line.startswith(b"%")), b"")
        stated = SIZES.fullmatch(size)
        if not (stated and HEAD.fullmatch(head)):
            needed = "a general Matrix Market file of coordinates and whole or real numbers that states its size"
            raise DataError(f"{path.name} is not {needed}: write it so (scipy.io.mmwrite does), or {AGAIN}")
        n_rows, n_columns, n = map(int, stated.groups())
        rule = {"sep": r"\s+", "header": None, "na_filter": False, "low_memory": False, "chunksize": BLOCK}
        parts = [_entries(part, n_rows, n_columns, path) for part in pd.read_csv(stream, **rule)]
    rows, columns, values = map(np.concatenate, zip(*parts))
    if len(values) != n:
        raise DataError(f"{path.name} says it has {n:,} entries, and has {len(values):,}: it was cut short, {AGAIN}")
    return _once(sparse.csr_matrix((values, (columns, rows)), shape=(n_columns, n_rows)), n, path, notes)


def _entries(part, n_rows, n_columns, path):
    kinds, places = "".join(d.kind for d in part.dtypes), part.iloc[:, :2]
    fits = re.fullmatch("ii[iuf]", kinds) and places.min().min() > 0 and (places.max() <= (n_rows, n_columns)).all()
    if not fits:
        raise DataError(f"{path.name} has entries that are no place and number in {n_rows:,} × {n_columns:,}: {AGAIN}")
    values = part[2].to_numpy()
    sound(values[:, None], "counts", part.iloc[:, :0], path)
    return part[0].to_numpy(np.int32) - 1, part[1].to_numpy(np.int32) - 1, values


def _once(X, n, path, notes):
    """`X` of `n` entries, those of one place summed as SciPy and scanpy do, as float32 where that holds them."""
    X.sum_duplicates()
    if X.nnz != n:
        said = f"{many(n - X.nnz, 'entry')} added to another one of the same place"
        if notes is None:  # a published file, of which it is known that it has none
            raise DataError(f"{path.name} has {said}: it is damaged, {AGAIN}")
        notes.append(said)
    X.eliminate_zeros()
    # Counts that float32 rounds are left as they are, for the door to say so.
    return X if X.nnz and X.data.max() > 2**24 else X.astype(np.float32)


def features(path) -> pd.DataFrame:
    """``genes.tsv`` (version 2: id, symbol) or ``features.tsv`` (version 3: id, symbol, type)."""
    table = words(path, "\t", heading=False, quoted=False, whole=False)
    wide, table = table.shape[1] > 6, table.iloc[:, :3]
    table = table.set_axis(["id", "symbol", "feature_type"][: table.shape[1]], axis=1)
    table = table if "symbol" in table else table.assign(symbol=table["id"])
    odd = table[["id", "symbol"]].apply(lambda c: (c == "") | c.str.contains('"')).any(axis=1)
    if wide or odd.any():
        raise DataError(f"{path.name} has other columns than id, symbol and type, or names without a word: {AGAIN}")
    return table


def barcodes(path) -> pd.Index:
    """One barcode a line."""
    table = words(path, "\t", heading=False, quoted=False, whole=False)
    names, lengths = table["0"], table["0"].str.len()
    if table.shape[1] != 1 or names.str.contains('"').any():
        raise DataError(f"{path.name} does not hold one barcode a line, without quotation marks: it is another file")
    if (lengths[:-1] == lengths.iloc[0]).all() and lengths.iloc[-1] < lengths.iloc[0]:
        raise DataError(f"{path.name} ends in {names.iloc[-1]!r}, shorter than the others: it was cut, {AGAIN}")
    return pd.Index(names, dtype=object)


def triplet(paths, notes: list | None = None):
    """Matrix, features and barcodes of one folder, read and put in their places; the files in any order."""
    kinds = [kind_of(path) for path in paths]
    for kind in KINDS:
        if kinds.count(kind) != 1:
            wrong = f"two are both {kind}" if kind in kinds else f"there is no file of {kind}"
            raise DataError(f"{names_of_files(paths)}: {wrong}; give the three files of one folder")
    found = dict(zip(kinds, paths))
    X, genes, cells = counted(found["matrix"], notes), features(found["genes"]), barcodes(found["barcodes"])
    fitted(X, genes, cells, " with ".join(found[k].name for k in KINDS))
    return X, genes, cells


def folder(paths, *, feature_type: str | None = GENES):
    """A matrix, its genes and its barcodes, three files in any order and told apart by their names, as AnnData.

    Layout, gzipped or not: ``matrix.mtx`` (Matrix Market, genes × cells, whole numbers); ``genes.tsv`` (id, symbol) of
    version 2, or ``features.tsv.gz`` (id, symbol, type) of version 3, of whose types `feature_type` is kept, or all for
    None; ``barcodes.tsv``.

    ``X``: CSR, counts; entries of one place are summed, and ``uns["notes"]`` says so. ``var``: id, symbol,
    feature_type. Genes are named by symbols; two that share one keep their ids. :class:`DataError` if a file is damaged
    or missing, sizes do not match, or genes and barcodes are swapped.
    """
    return _made(*triplet(paths, notes := []), feature_type, names_of_files(paths), notes)


def h5(paths, *, feature_type: str | None = GENES, genome: str | None = None):
    """10x Genomics' ``.h5``, one file: ``X``, ``var`` and notes as :func:`folder` gives them.

    Layouts, compressed columns of genes × cells: version 2, one group a genome, with data, indices, indptr, shape,
    genes (ids), gene_names, barcodes, and `genome` the one to read of several; version 3, the group ``matrix``, the
    same but with ``features/{id, name, feature_type}``, of which `feature_type` is kept, or all for None.
    :class:`DataError` if the file is damaged, its parts contradict each other, it holds several genomes, or no matrix.
    """
    (path,) = paths
    notes: list[str] = []
    with refused(path, "an HDF5 matrix of 10x"), h5py.File(path) as file:
        group = file[_genome(file, genome, path)]
        table, names = (group["features"], "name") if "features" in group else (group, "gene_names")
        stored = {"id": table.get("id", table.get("genes")), "symbol": table[names]}
        stored |= {k: table[k] for k in ("feature_type",) if k in table}
        genes = pd.DataFrame({new: text_of(values) for new, values in stored.items()}, dtype=object)
        X, cells = _sparse(group, len(genes), path, notes)
    return _made(X, genes, cells, feature_type, path.name, notes)


def _genome(file, genome, path):
    if "matrix" in file:
        return "matrix"
    there = [name for name in file if {"barcodes", "indptr", "gene_names"} <= set(getattr(file[name], "keys", list)())]
    if not there:
        molecules = "barcode_info" in file or "barcode_idx" in file
        what = "molecules, not their matrix" if molecules else f"no matrix of 10x but {shown(file) or 'nothing'}"
        raise DataError(f"{path.name} holds {what}: take filtered_feature_bc_matrix.h5 of the same run")
    if genome not in there and (genome or len(there) > 1):
        raise DataError(f"{path.name} holds the genomes {shown(there)}: choose one, load(..., genome={there[0]!r})")
    return genome or there[0]


def text_of(stored) -> list[str]:
    """The words of an HDF5 dataset or of an array."""
    return [w.decode("utf-8") if isinstance(w, bytes) else str(w) for w in stored[:]]


def _sparse(group, genes, path, notes):
    cells, shape = text_of(group["barcodes"]), tuple(int(n) for n in group["shape"][:])
    if shape != (genes, len(cells)):
        raise DataError(f"{path.name} holds {shape} and names {genes} genes, {len(cells)} cells: damaged, {AGAIN}")
    data = group["data"][:]
    sound(data[:, None], "counts", pd.DataFrame(index=range(0)), path)
    data = data.astype(np.int64 if data.dtype.kind in "iu" else np.float64)  # sums need room
    # Compressed columns of genes × cells are compressed rows of cells × genes.
    X = sparse.csr_matrix((data, group["indices"][:], group["indptr"][:]), shape=shape[::-1])
    X.check_format(full_check=True)
    return _once(X, X.nnz, path, notes), cells


def _made(X, genes, cells, feature_type, what, notes):
    if feature_type is not None and "feature_type" in genes:
        kept = (genes["feature_type"] == feature_type).to_numpy()
        if not kept.any():
            types = genes["feature_type"].unique()
            has = f"has no features of type {feature_type!r}; it has {shown(types)}"
            raise DataError(f"{what} {has}: choose one, load(..., feature_type={types[0]!r})")
        if not kept.all():
            left = shown(genes.loc[~kept, "feature_type"].unique())
            notes.append(f"{many(int((~kept).sum()), 'feature')} of other types left out ({left})")
            X, genes = X[:, kept], genes[kept].reset_index(drop=True)
    names = pd.Index(distinct(genes["symbol"], genes["id"], what))
    return named(X, names, pd.Index(cells), what, var=genes, notes=notes, units="counts")
