"""HDF5 files of 10x Genomics (two layouts), and the dense ones scJoint ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io.assemble import assembled, labels, names_of_files
from shared.data.io.mtx import chosen, named
from shared.data.io.text import AGAIN, LARGEST, refused, words


def read(
    paths: list[Path],
    *,
    names: str = "symbol",
    feature_type: str | None = "Gene Expression",
    genome: str | None = None,
    batches: list | None = None,
    modality: list | None = None,
    units: str | None = None,
):
    """10x Genomics' ``.h5``, or scJoint's, told apart by what is in them.

    Layouts:

    - 10x, version 2: one group a genome, with data, indices, indptr, shape (compressed columns of genes × cells), genes
      (ids), gene_names, barcodes.
    - 10x, version 3: the group ``matrix``, the same but with ``features/{id, name, feature_type, genome}``.
    - scJoint: the group ``matrix`` with ``data`` as a full table of features × cells, ``barcodes`` and ``features``;
      and beside it a ``…cellTypes.csv`` as R writes it (a number or the cell's name, then the type), in the order of
      the cells. The values are log(1 + x) of counts or of gene activity, not counts.

    Parameters
    ----------
    paths : list of Path
        One or more ``.h5``; the ``.csv`` after one holds its cells' types. Several must have the same features.
    names : {"symbol", "id"}
        Of 10x files; see :func:`shared.data.io.mtx.tenx`.
    feature_type : str, optional
        Of 10x files of version 3: the kind to keep; None keeps all.
    genome : str, optional
        Of 10x files of version 2 with several.
    batches : list of str, optional
        What to write as batch, one for each ``.h5``; the file's name where there are several and none is given.
    modality : list of str, optional
        Written to ``obs["modality"]``, one for each ``.h5``.
    units : str, optional
        counts for 10x and log for scJoint where not given.

    Returns
    -------
    AnnData
        ``X``: float32 CSR. ``obs``: cell_type where there are types (missing in the other files), batch, modality.
        Names that two files share are written ``batch_name`` in all.

    Raises
    ------
    DataError
        If a file is damaged, its parts contradict each other, types and cells differ in number, or features differ.
    """
    from scipy import sparse

    groups = _grouped(paths)
    for said, what in ((batches, "batches"), (modality, "modality")):
        if said is not None and len(said) != len(groups):
            raise DataError(f"{what} has {len(said)} names for {many(len(groups), '.h5 file')}: give one for each")
    if batches is None and len(groups) > 1:
        batches = [p.name.removesuffix(".h5") for p, _ in groups]
    parts, obs, var, genes, found_units, notes = [], [], None, None, set(), []
    for i, (path, types) in enumerate(groups):
        with refused(path, "an HDF5 matrix"):
            X, cells, features, kind = _opened(path, genome)
        found_units.add(kind)
        X, features, left = chosen(X, features, feature_type, path.name)
        notes += left
        own, own_var = named(features, names, path.name)
        if genes is not None and not np.array_equal(own, genes):
            raise DataError(f"{path.name} and {groups[0][0].name} have other features: read them one by one")
        genes, var = own, own_var
        table = pd.DataFrame(index=pd.Index(cells, dtype=object))
        if types is not None:
            table["cell_type"] = _types(types, table.index, path)
        for said, what in ((modality, "modality"), (batches, "batch")):
            if said is not None:
                table[what] = said[i]
        parts.append(X)
        obs.append(table)
    table = pd.concat(obs)
    if len(groups) > 1 and table.index.has_duplicates:
        table.index = pd.Index([f"{b}_{c}" for b, c in zip(table["batch"], table.index)], dtype=object)
    if len(found_units) > 1:
        raise DataError(f"{names_of_files(paths)} are of two kinds, counts and logged values: read them one by one")
    units = units or found_units.pop()
    X = sparse.vstack(parts, format="csr")
    var = None if (var["id"] == var["symbol"]).all() else var  # as scJoint's, which have one name
    return assembled(X, genes, table, units, names_of_files(paths), var=var, notes=notes)


def _grouped(paths):
    groups = []
    for path in paths:
        if path.name.endswith((".h5", ".hdf5")):
            groups.append([path, None])
        elif groups and groups[-1][1] is None:
            groups[-1][1] = path
        else:
            raise DataError(f"{path.name} follows no .h5 file it could hold the types of: give each after its matrix")
    if not groups:
        raise DataError(f"{names_of_files(paths)}: there is no .h5 file")
    return groups


def _opened(path, genome):
    import h5py

    with path.open("rb") as file:
        if file.read(4) != b"\x89HDF":
            raise DataError(f"{path.name} is no HDF5 file, or is empty: it may be an error page, {AGAIN}")
    with h5py.File(path) as file:
        groups = [n for n in file if isinstance(file[n], h5py.Group)]
        if "matrix" not in file:
            if genome is None and len(groups) != 1:
                raise DataError(f"{path.name} holds the genomes {shown(groups) or 'none'}: name one (genome)")
            name = genome or groups[0]
            if name not in groups:
                raise DataError(f"{path.name} has no genome {name!r}; it has {shown(groups)}")
            group = file[name]
            features = pd.DataFrame(
                {"id": text_of(group["genes"]), "symbol": text_of(group["gene_names"])}, dtype=object
            )
            return *_sparse(group, len(features), path), features, "counts"
        group = file["matrix"]
        if isinstance(group["features"], h5py.Group):
            parts = {"id": "id", "symbol": "name", "feature_type": "feature_type"}
            columns = {new: text_of(group["features"][old]) for new, old in parts.items() if old in group["features"]}
            features = pd.DataFrame(columns, dtype=object)
            return *_sparse(group, len(features), path), features, "counts"
        return *_full(group, path), "log"


def text_of(stored) -> list[str]:
    """The words of an HDF5 dataset or of an array."""
    return [w.decode("utf-8") if isinstance(w, bytes) else str(w) for w in stored[:]]


def _sparse(group, genes, path):
    from scipy import sparse

    cells = text_of(group["barcodes"])
    shape = tuple(int(n) for n in group["shape"][:])
    if shape != (genes, len(cells)):
        raise DataError(
            f"{path.name} says it holds {shape[0]:,} genes × {shape[1]:,} cells, and names {genes:,} and "
            f"{len(cells):,}: it is damaged, {AGAIN}"
        )
    data = group["data"][:]
    if (data < 0).any() or (data.dtype.kind not in "iu" and not (data == np.floor(data)).all()):
        raise DataError(f"{path.name} holds values that are no counts: it is damaged, or was normalised")
    arrays = (data.astype(np.float32), group["indices"][:].astype(np.int64), group["indptr"][:].astype(np.int64))
    # Compressed columns of genes × cells are compressed rows of cells × genes.
    X = sparse.csr_matrix(arrays, shape=shape[::-1])
    X.check_format(full_check=True)
    X.sort_indices()
    if not X.has_canonical_format:
        raise DataError(f"{path.name} holds entries twice: it is damaged, {AGAIN}")
    X.eliminate_zeros()
    return X, cells


def _full(group, path):
    from scipy import sparse

    cells, features = text_of(group["barcodes"]), text_of(group["features"])
    data = group["data"]
    if data.shape != (len(features), len(cells)):
        raise DataError(
            f"{path.name} holds a table of {' × '.join(map(str, data.shape))}, and names {len(features):,} features "
            f"and {len(cells):,} cells: it is damaged, or lies on its side"
        )
    parts = []
    step = max(1, 8_000_000 // max(1, len(cells)))
    for start in range(0, len(features), step):
        block = data[start : start + step]
        if not ((block >= 0) & (block <= LARGEST)).all():
            raise DataError(f"{path.name} holds negative values or ones that are not finite: it is damaged, {AGAIN}")
        parts.append(sparse.csr_matrix(block.astype(np.float32)))
    X = sparse.vstack(parts, format="csr").T.tocsr()
    return X, cells, pd.DataFrame({"id": features, "symbol": features}, dtype=object)


def _types(path, cells, matrix):
    table = words(path, ",")
    if table.shape[1] != 2:
        raise DataError(f"{path.name} has {table.shape[1]} columns where a number or name and a type are due: {AGAIN}")
    if len(table) != len(cells):
        raise DataError(
            f"{path.name} has {many(len(table), 'type')} for the {many(len(cells), 'cell')} of {matrix.name}: "
            "one of them was cut short, or they do not belong together"
        )
    first = table.iloc[:, 0]
    numbered = (first == pd.Series(range(1, len(first) + 1)).astype(str)).all()
    if not numbered and list(first) != list(cells):
        raise DataError(f"{path.name} names the cells in another order than {matrix.name}: they do not belong together")
    return labels(table.iloc[:, 1]).to_numpy()
