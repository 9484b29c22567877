"""AnnData files, of any layout that anndata reads."""

import warnings

import h5py

from shared.data.errors import DataError
from shared.data.io.tables import refused
from shared.data.validate.structure import column_of, layer_of, matrix_of, widened


def read(paths, *, layer=None, obs=None, units=None):
    """An ``.h5ad`` file as it stands; :class:`DataError` if it is damaged, or has no such layer or column.

    ``X`` is taken from `layer` where one is named, and holds `units` where the file does not say it. `obs` gives new
    names to columns of ``obs``, beside the old ones: ``{"cell_type": "celltype", "batch": "tech"}`` gives scIB's
    pancreas the names the book uses.
    """
    import anndata as ad

    (path,) = paths
    with refused(path, ".h5ad"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique", category=UserWarning)  # the door refuses
        warnings.filterwarnings("ignore", category=FutureWarning, module="anndata")  # of old layouts
        try:
            found = ad.read_h5ad(path)
        except ValueError as e:
            if "does not support dtype" not in str(e):
                raise
            found = _widened(path)
    if layer is not None:
        found.X = layer_of(found, layer, path.name).copy()
    if found.X is None:
        there = f"it has {', '.join(found.layers)}" if len(found.layers) else "and it has none"
        raise DataError(f"{path.name} has no X: name the layer to read, load(..., layer=...); {there}")
    for new, old in (obs or {}).items():
        found.obs[new] = column_of(found.obs, old, path.name)
    if units is not None:
        found.uns["units"] = units
    return found


def _widened(path):
    """A file whose sparse values are float16 or big-endian, of which SciPy makes no matrix; widened in memory."""
    import anndata as ad

    with h5py.File(path, "r+", driver="core", backing_store=False) as file:  # the file itself stays as it is
        sparse = []
        file.visit(lambda name: sparse.append(file[name]) if "indptr" in getattr(file[name], "keys", list)() else None)
        for group in sparse:
            values = widened(matrix_of(group["data"][:]))
            del group["data"]
            group["data"] = values
        return ad.io.read_elem(file)


def write(adata, path, packing: str) -> None:
    """Write AnnData with its arrays packed by ``"gzip"`` or ``"lzf"``; what anndata and h5py raise is passed on."""
    import anndata as ad

    # pandas 3 keeps words in arrays that anndata writes only when told to.
    told = {name: True for name in ("allow_write_nullable_strings",) if name in dir(ad.settings)}
    with ad.settings.override(**told):
        adata.write_h5ad(path, compression=packing)
