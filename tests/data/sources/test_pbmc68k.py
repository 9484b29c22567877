"""The 700 blood cells inside scanpy's wheel: the old layout is read, and a damaged or other file is named."""

import h5py
import numpy as np
import pandas as pd
import pytest
from official_layouts import replaced
from scipy import sparse

from shared.data.catalogue import catalog
from shared.data.errors import DataError
from shared.data.sources import pbmc68k

X = np.array([[0, 1.5, 0], [2.5, 0, 0], [0, 0, 3], [1, 1, 0]], np.float32)


def small(path, change=None):
    """A file of the same layout with four cells and three genes."""
    kinds = [("index", "S4"), ("bulk_labels", "i1"), ("n_genes", "i8"), ("percent_mito", "f4"), ("n_counts", "f4")]
    cells = np.array([(f"c{i}".encode(), i % 2, 10 + i, 0.5, 100) for i in range(4)], kinds)
    with h5py.File(path, "w") as file:
        file["obs"] = cells
        file["X"] = X * 100
        file["raw.var"] = np.array([(b"CD3D",), (b"LYZ",), (b"GNLY",)], [("index", "S4")])
        file["uns/bulk_labels_categories"] = np.array([b"B cell", b"T cell"])
        raw = file.create_group("raw.X")
        for name in ("data", "indices", "indptr"):
            raw[name] = getattr(sparse.csr_matrix(X), name)
        raw.attrs["h5sparse_shape"] = X.shape
        if change:
            change(file)
    return path


def test_raw_is_read_and_the_scaled_values_are_left(tmp_path):
    got = pbmc68k.read([small(tmp_path / "a.h5ad")])
    assert sparse.issparse(got.X) and got.X.dtype == np.float32 and (got.X.toarray() == X).all()
    assert list(got.obs_names) == ["c0", "c1", "c2", "c3"] and list(got.var_names) == ["CD3D", "LYZ", "GNLY"]
    assert got.obs["cell_type"].tolist() == ["B cell", "T cell"] * 2 and got.obs["n_genes"].tolist() == [10, 11, 12, 13]
    assert got.uns["units"] == "log"
    got.write_h5ad(tmp_path / "b.h5ad")  # what the cache does with it


@pytest.mark.parametrize(
    "change",
    [
        replaced("raw.X", None),
        replaced("raw.var", None),
        replaced("obs", np.arange(4)),
        replaced("uns/bulk_labels_categories", np.array([b"B cell"])),
        replaced("raw.X/indices", np.array([0, 1, 2, 0, 9])),
        replaced("raw.X/data", np.ones(3)),
        replaced("raw.var", np.array([(b"CD3D",)], [("index", "S4")])),
    ],
    ids=["no raw", "no genes", "no labels", "a label without a name", "a gene too far", "too few values", "one gene"],
)
def test_a_damaged_file_is_named(tmp_path, change):
    with pytest.raises(DataError, match=r"a\.h5ad cannot be read as scanpy's file"):
        pbmc68k.read([small(tmp_path / "a.h5ad", change)])


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"\x89HDF\r\n\x1a\n" + b"\x00" * 100])
def test_what_is_no_hdf5_is_named(tmp_path, content):
    (tmp_path / "a.h5ad").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        pbmc68k.read([tmp_path / "a.h5ad"])


def test_a_cut_file_is_named(tmp_path):
    path = small(tmp_path / "a.h5ad")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match="damaged"):
        pbmc68k.read([path])


@pytest.mark.network
def test_the_catalogue_tells_the_truth(packaged):
    entry = catalog()["pbmc68k-reduced"]
    got = pbmc68k.read(packaged(entry))
    assert got.shape == entry.shape and entry.units == got.uns["units"] == "log"
    assert got.obs["cell_type"].value_counts().to_dict() == {
        "Dendritic": 240, "CD14+ Monocyte": 129, "CD19+ B": 95, "CD4+/CD25 T Reg": 68, "CD8+ Cytotoxic T": 54,
        "CD8+/CD45RA+ Naive Cytotoxic": 43, "CD56+ NK": 31, "CD4+/CD45RO+ Memory": 19, "CD34+": 13,
        "CD4+/CD45RA+/CD25- Naive T": 8,
    }  # fmt: skip
    assert got.X.min() == 0 and got.X.max() < 7 and np.isfinite(got.X.data).all()
    highest = {"CD79A": "CD19+ B", "GNLY": "CD56+ NK", "FCER1A": "Dendritic", "S100A9": "CD14+ Monocyte"}
    mean = got.to_df()[list(highest)].groupby(got.obs["cell_type"].to_numpy()).mean()
    assert mean.idxmax().to_dict() == highest
    assert pd.Series(got.var_names).is_unique and not (got.var_names.str.startswith("b'")).any()
