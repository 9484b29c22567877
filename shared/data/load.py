"""The door: a name or a path in, checked AnnData out."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.cache import sha256
from shared.data.catalogue import UNITS, Route, catalog, entry, joined_sha256
from shared.data.constraints import Flag, Maybe, OneOf, require
from shared.data.errors import DataError, warn
from shared.data.genes.lists import many, names_of, shown, stamp
from shared.data.genes.translate import DUPLICATES, merge_duplicates
from shared.data.validate.checks import check, value_errors
from shared.data.validate.findings import refuse
from shared.data.validate.structure import column_of, layer_of, matrix_of, narrow, structure
from shared.data.validate.values import scan, units_of

if TYPE_CHECKING:
    import anndata as ad

# How a file of your own is read, by what its name ends in, .gz aside; a folder is one of 10x Genomics.
KINDS = dict.fromkeys((".csv", ".tsv", ".txt", ".tab"), "table") | {".gct": "gct", ".mtx": "tenx_mtx"}
KINDS |= dict.fromkeys((".h5ad", ".h5", ".hdf5"), "hdf5")
TENX = "files of 10x Genomics"
# What else of load's choices is for files of some kinds only, and of which.
CHOICES = {
    "layer": (("h5ad",), ".h5ad files"),
    "feature_type": (("tenx_mtx", "tenx_h5"), TENX),
    "genome": (("tenx_h5",), TENX),
    "annotation": (("table",), "tables"),
}


def load(
    name, *, route=None, layer=None, feature_type=None, genome=None, duplicates="refuse", transpose=False, units=None
) -> ad.AnnData:
    """Load a data set of the catalogue by name, or a file of your own by path.

    Parameters
    ----------
    name : str or path
        A name in ``data/catalog.yml``, or a path: to an ``.h5ad`` file; to a ``.csv``, ``.tsv`` or ``.txt`` table
        (cells × genes, first column the cell names, first row the gene names); to a ``.gct`` file; to a series matrix
        of GEO (``…_series_matrix.txt``); to an ``.h5`` file of 10x Genomics; to its folder of ``matrix.mtx``,
        ``barcodes.tsv`` and ``genes.tsv`` or ``features.tsv``, or to the matrix among several in a folder. Text may be
        gzipped, whatever its name says. Names are read as written.
    route : {"bundled", "package", "official", "simulated"}, optional
        Take a data set of the catalogue by this route only.
    layer : str, optional
        Take ``X`` from this layer of an ``.h5ad`` file.
    feature_type, genome : str, optional
        Of files of 10x Genomics: the kind of features to read, ``"Gene Expression"`` where not given, or ``"all"``; and
        the genome, where an ``.h5`` file of version 2 holds several.
    duplicates : {"refuse", "sum", "first"}, default "refuse"
        What becomes of genes that a file of your own names twice: an error, the sum of their counts (sums make no sense
        of logged and centred values, and are refused), or the first of them. ``uns["notes"]`` tells how many there
        were. Genes that share a symbol in files of 10x Genomics keep apart: they go by their Ensembl ids.
    transpose : bool, default False
        A file of your own has genes in rows and cells in columns, as most tables of GEO do: turn it.
    units : {"counts", "log", "tpm", "z", "none"}, optional
        What a file of your own holds, where it does not say so, or says something else.

    Returns
    -------
    AnnData
        ``X`` : float32, CSR (each entry once, no zero stored) or ndarray, cells × genes. Where ``X`` holds counts,
        ``layers["counts"]`` holds a copy, so that normalising ``X`` loses nothing. In ``uns``: ``"sha256"`` of the
        file; ``"source"``, where it came from; ``"units"``, one of those above, or ``"unknown"`` where neither the file
        nor the values tell; ``"gene_hash"`` of the ordered genes; ``"notes"``, what was changed, in words.

    Warns
    -----
    DataWarning
        If :func:`shared.data.check` finds more than a note in a file of your own.

    Raises
    ------
    DataError
        If the name is unknown, the file is missing, damaged, altered, unverified (of no known sha256) or of a kind that
        is not read, or the matrix is empty, holds NaN, infinities, words or negative counts, or names a cell twice, or
        a gene without a word on `duplicates`.
    """
    if not isinstance(name, (str, os.PathLike)):
        what = f"name is a {type(name).__name__}, and a name of the catalogue or the path of a file is needed"
        raise DataError(f"{what}: shared.data.from_arrays takes a matrix in memory, shared.data.check an AnnData")
    require(OneOf(*DUPLICATES), duplicates=duplicates)
    require(Flag(), transpose=transpose)
    require(Maybe(OneOf(*UNITS)), units=units)
    own, choices = own_path(name), {"layer": layer, "feature_type": feature_type, "genome": genome}
    if own is not None:
        if route is not None:
            raise DataError(f"{own.name} is a file of your own and has no route {route!r}: leave route out")
        return load_own(own, choices, duplicates, transpose, units)
    for option, value in (choices | {"transpose": transpose, "units": units}).items():
        if value and option != "layer":
            raise DataError(f"{option} is for files of your own, and {name} is of the catalogue: leave {option} out")

    from shared.data.routes import obtain

    found = entry(str(name))
    adata = obtain(found, route)
    if not hasattr(adata, "var_names"):
        raise DataError(f"{found.name!r} holds no expression but names: take shared.data.gene_table({found.name!r})")
    if layer is not None:
        adata.X = layer_of(adata, layer, found.name).copy()  # X and the layer it was read from must not change together
    structure(adata, found.name)
    values = scan(adata.X)
    units = (units_of(adata, values) or found.units) if layer is None else None
    source = f"{found.citation} {found.accession}. {found.licence}."
    _finished(adata, found.name, units, values, adata.uns["sha256"], source)
    return adata


def own_path(name) -> Path | None:
    """The path `name` stands for, or None where it is a name for the catalogue to know."""
    path = Path(os.path.expanduser(str(name)))
    if isinstance(name, os.PathLike) or path.suffix or path.name != str(name):
        return path
    return path if os.path.isdir(path) and str(name) not in ("", *catalog()) else None


def load_own(path: Path, choices, duplicates, transpose, units) -> ad.AnnData:
    """:func:`load` of a file; `choices` are those of :data:`CHOICES`, the columns that describe a table's rows too."""
    from shared.data import routes

    if not os.path.exists(path):  # nor is one whose name no path can have, on which pathlib fails
        raise DataError(f"there is no file {str(path)[:200]}: check the spelling, and your folder ({Path.cwd()})")
    kind, files = _kind(path)
    options = {choice: value for choice, value in choices.items() if value}
    for choice, value in options.items():
        kinds, whose = CHOICES[choice]
        if kind not in kinds:
            raise DataError(f"{path.name} has no {choice} {value!r}, only {whose} do: leave {choice} out")
    if options.get("feature_type") == "all":
        options["feature_type"] = None
    if kind == "table":
        options["transposed"] = transpose
    adata = routes._read(Route("official", kind, options=options), files)
    if transpose and kind != "table":
        adata = adata.T
    if choices.get("layer"):
        adata.uns.pop("units", None)  # of the file's X
    if units is not None:
        adata.uns["units"] = units
    adata = _merged(adata, path.name, duplicates, "load")
    values, said = scan(adata.X), adata.uns.get("units")
    units = units_of(adata, values)
    _finished(adata, path.name, units, values, joined_sha256([sha256(f) for f in files]), str(path))
    if said is not None and str(said) != adata.uns["units"]:
        why = "of values that were logged since" if units else "which is none that is known here"
        stamp(adata, [f"uns['units'] said {said!r}, {why}; it says {adata.uns['units']!r} now"])
    if transpose:
        stamp(adata, ["genes stood in rows, and were turned into columns"])
    # What was mended is no longer there to be found.
    report = check(adata, values=replace(values, parts=0, stored_zeros=0, large=0))
    if not report.ok:  # in one, because the next one from the same line would not be shown
        warn("; ".join(f.about(path.name) for f in report.serious))
    return adata


def _kind(path: Path) -> tuple[str, list[Path]]:
    name = path.name.lower()  # some systems write .CSV
    if name.removesuffix(".gz").endswith("series_matrix.txt"):  # as GEO names them
        return "series_matrix", [path]
    kind = "tenx_mtx" if path.is_dir() else KINDS.get(Path(name.removesuffix(".gz")).suffix)
    if kind is None:
        raise DataError(f"{path.name} is no file that is read here: save it as {', '.join(KINDS)}, or a folder of 10x")
    if kind == "tenx_mtx":
        return kind, _beside(path)
    if kind != "hdf5":
        return kind, [path]
    if name.endswith(".gz"):
        raise DataError(f"{path.name} is packed, and HDF5 is read as it lies: unpack it first (gunzip)")
    own = name.endswith(".h5ad")
    with contextlib.suppress(OSError), h5py.File(path) as file:  # by what is in it, whatever its name says
        own = "obs" in file or ("matrix" not in file and own)
    return "h5ad" if own else "tenx_h5", [path]


def _beside(path: Path) -> list[Path]:
    """The matrix, genes and barcodes in a folder, or those that go with one of the matrices in it."""
    from shared.data.io.tenx import kind_of

    folder = path if path.is_dir() else path.parent
    try:
        files = sorted(p for p in folder.iterdir() if p.is_file() and kind_of(p))
        deeper = [p.name for p in folder.iterdir() if p.is_dir() and any(map(kind_of, p.iterdir()))]
    except OSError as e:
        raise DataError(f"{folder.name} cannot be looked into ({e.strerror}): you may lack the right to") from e
    if path != folder:
        # GSM1_matrix.mtx.gz goes with GSM1_genes.tsv.gz; matrix.mtx with genes.tsv.
        start = re.sub(r"[._-]?(matrix)?(\.mtx)?(\.gz)?$", "", path.name, flags=re.IGNORECASE)
        return [path, *(p for p in files if p.name.startswith(start) and kind_of(p) != "matrix")]
    matrices = [p.name for p in files if kind_of(p) == "matrix"]
    if len(matrices) > 1:
        raise DataError(f"{path.name} holds {shown(matrices)}: name one, as load('{path.name}/{matrices[0]}')")
    if not matrices:
        where = f"there is one in {shown(deeper)}" if deeper else "name the file to read, or a folder of 10x"
        raise DataError(f"{path.name or path} is a folder without a matrix.mtx: {where}")
    return files


def _merged(adata, what, duplicates, call) -> ad.AnnData:
    """`adata` with each gene once; where that was not asked for, an error that says how to ask `call` for it."""
    cure = f'{call}(..., duplicates="sum") adds up the counts of the copies, "first" keeps the first of them'
    structure(adata, what, duplicated_genes=duplicates != "refuse", cure=cure)
    if adata.var_names.is_unique:
        return adata
    values = scan(adata.X)
    refuse(value_errors(values, units_of(adata, values)), what)
    try:
        return merge_duplicates(adata, duplicates)[0]
    except DataError as e:
        raise DataError(f"{what}: {e}") from e


def _finished(adata, what, units, values, sha256, source) -> None:
    """Refuse what no analysis can use; set X, units, hashes, notes and source; keep counts in a layer."""
    refuse(value_errors(values, units), what)
    adata.X, units, notes = _as_float32(adata.X, units, values)
    if units == "counts":
        if "counts" in adata.layers and (adata.layers["counts"] != adata.X).sum():
            notes.append("layers['counts'] held other values than X and was replaced by a copy of it")
        # Of X, so that the two agree whatever layer X was read from; and whole, because X.eliminate_zeros() on index
        # arrays that both share would turn the counts into others without a word.
        adata.layers["counts"] = adata.X.copy()
    adata.uns |= {"units": units, "sha256": sha256, "source": source}
    stamp(adata, notes)


def _as_float32(X, units, values, copy=False):
    """`X` as float32 CSR, each entry once and no zero stored, or ndarray; its units, and what was changed.

    With `copy` the result shares no memory with `X`; without it may, and may have changed `X` in place.
    """
    if units is None:
        units = "counts" if values.whole and values.largest > 1 else "unknown"
    form, summed = getattr(X, "format", "csr"), f"{many(values.parts, 'part')} of entries stored in several"
    changes = {
        f"{X.dtype} became float32": X.dtype != np.float32,
        f"{many(values.large, 'count')} above 16,777,216 were rounded by float32": values.large,
        f"{form.upper()} became CSR": form != "csr",
        f"{summed} were added up": values.parts,
        f"{many(values.stored_zeros, 'stored zero')} removed": values.stored_zeros,
    }
    notes = [change for change, made in changes.items() if made]
    if not sparse.issparse(X):
        return np.array(X, np.float32, copy=copy or None, order="C"), units, notes
    if values.parts:  # added up before they are rounded, and where small integers have room
        X = X.astype(np.float64).tocsr()
        X.sum_duplicates()
    out = narrow(sparse.csr_matrix(X, dtype=np.float32, copy=copy))
    out.sum_duplicates()
    out.eliminate_zeros()
    return out, units, notes


def to_arrays(adata, labels="cell_type"):
    """AnnData to what estimators take.

    Parameters
    ----------
    adata : AnnData
        cells × genes.
    labels : str
        Column of ``obs``.

    Returns
    -------
    X : float32, CSR or ndarray of shape (n_cells, n_genes)
        Shares memory with ``adata.X`` where that has this form already.
    y : ndarray of str, shape (n_cells,)
    genes : list of str

    Raises
    ------
    DataError
        If ``obs`` has no such column, a cell has no label, or the matrix is one that :func:`load` would refuse.
    """
    structure(adata)
    column = column_of(adata.obs, labels)
    if column.isna().any():
        missing = many(int(column.isna().sum()), "cell")
        raise DataError(f"obs[{labels!r}] has no label for {missing}: drop them, or label them, first")
    X = matrix_of(adata)
    values = scan(X)
    refuse(value_errors(values), "the matrix", but="negative")  # centred values may happen to be whole
    tidy = not sparse.issparse(X) or (X.format == "csr" and X.has_canonical_format and not values.stored_zeros)
    X, _, _ = _as_float32(X, None, values, copy=not tidy)
    return X, column.astype(str).to_numpy(dtype=str), list(map(str, adata.var_names))


def from_arrays(X, genes, *, obs=None, units=None, duplicates="refuse") -> ad.AnnData:
    """Arrays to AnnData: the way back, and the way in for a matrix that is not in a file.

    Parameters
    ----------
    X : CSR, ndarray or DataFrame of shape (n_cells, n_genes)
        Counts or logged values; copied. The names of a DataFrame are not taken; in another order they are refused.
    genes : sequence of str
        One name a column.
    obs : DataFrame or dict of column to values, optional
        One row a cell; its index names the cells.
    units : {"counts", "log", "tpm", "z", "none"}, optional
        What `X` holds; whole numbers are taken for counts otherwise.
    duplicates : {"refuse", "sum", "first"}, default "refuse"
        What becomes of genes that are named twice, as in :func:`load`.

    Returns
    -------
    AnnData
        As :func:`load` returns it.

    Raises
    ------
    DataError
        As :func:`load`, and if lengths do not match.
    """
    import anndata as ad

    require(OneOf(*DUPLICATES), duplicates=duplicates)
    require(Maybe(OneOf(*UNITS)), units=units)
    if isinstance(X, ad.AnnData):
        raise DataError("this is AnnData already: shared.data.check looks at it, to_arrays takes it apart")
    given, X, genes = X, matrix_of(X), names_of(genes)
    if X.ndim != 2 or X.shape[1] != len(genes):
        raise DataError(f"X has shape {X.shape} and there are {many(len(genes), 'gene name')}: give cells × genes")
    obs, values = _obs(obs, X.shape[0]), scan(X)
    if isinstance(given, pd.DataFrame):
        for what, own, names in (("genes", given.columns, genes), ("obs", given.index, obs.index)):
            own = list(map(str, own))
            if own != list(names) and sorted(own) == sorted(names):
                axis = "columns" if what == "genes" else "rows"
                raise DataError(f"X names its {axis} in another order than {what}: bring them into one order")
    refuse(value_errors(values, units), "the matrix")
    X, units, notes = _as_float32(X, units, values, copy=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique", category=UserWarning)  # seen to next
        adata = ad.AnnData(X, obs=obs, var=pd.DataFrame(index=pd.Index(genes, dtype=object)))
    adata.uns["units"] = units
    adata = _merged(adata, "the matrix", duplicates, "from_arrays")
    if sparse.issparse(adata.X):  # merging left them as they came
        adata.X.sort_indices()
    if units == "counts":
        adata.layers["counts"] = adata.X.copy()
    adata.uns |= {"sha256": matrix_sha256(adata.X, adata.var_names), "source": "arrays"}
    stamp(adata, notes)
    return adata


def matrix_sha256(X, genes=()) -> str:
    """Of the names of genes and of a matrix, CSR or ndarray, for data that are in no file."""
    from shared.data.cells import digest  # scikit-learn takes a while

    names = np.array([*"\n".join(genes).encode()], np.uint8)
    return digest([names, X.shape, *((X.data, X.indices, X.indptr) if sparse.issparse(X) else (X,))])


def _obs(obs, n) -> pd.DataFrame:
    if not isinstance(obs, (pd.DataFrame, dict, type(None))):
        raise DataError(f"obs is a {type(obs).__name__}: give a DataFrame, or a dict of column to values")
    try:
        obs = pd.DataFrame(index=range(n)) if obs is None else pd.DataFrame(obs).copy()
    except Exception as e:
        raise DataError(f"obs cannot be read as a table ({e}): give one value for each cell") from e
    if len(obs) != n:
        raise DataError(f"X has {many(n, 'cell')} and obs {many(len(obs), 'row')}: give one row for each cell")
    obs.columns = obs.columns.map(str)
    return obs.set_axis(pd.Index(names_of(obs.index, "the index of obs"), dtype=object), axis=0)
