"""Cells with antibodies inside the package of scvi-tools: the layout is read, and damage is named."""

import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from official_layouts import replaced

from shared.data.catalogue import catalog
from shared.data.errors import DataError
from shared.data.sources import scvi

COUNTS = np.array([[0, 3, 0], [2, 0, 0], [0, 0, 7], [1, 1, 0]], np.float32)
PROTEINS = np.array([[5, 0], [1, 900], [0, 0], [3, 4]])


def small(path, change=None):
    """A file of the layout that scvi-tools ships, with four cells, three genes and two antibodies."""
    with h5py.File(path, "w") as file:
        file["X"] = COUNTS
        file["obs/index"] = np.array([b"AA-1", b"AC-1", b"AG-1", b"AT-1"], dtype="S4")
        for name in ("n_genes", "percent_mito", "n_counts"):
            file[f"obs/{name}"] = np.arange(4, dtype=np.float32)
        file["var/index"] = np.array([b"CD3D", b"LYZ", b"GNLY"], dtype="S4")
        file["uns/protein_names"] = np.array([b"CD3_TotalSeqB", b"PD-1_TotalSeqB"], dtype="S14")
        file["obsm/protein_expression"] = PROTEINS
        if change:
            change(file)
    return path


def test_counts_and_antibodies_are_read(tmp_path):
    got = scvi.read([small(tmp_path / "a.h5ad")])
    assert got.X.format == "csr" and got.X.dtype == np.float32 and (got.X.toarray() == COUNTS).all()
    assert list(got.var_names) == ["CD3D", "LYZ", "GNLY"] and list(got.obs_names) == ["AA-1", "AC-1", "AG-1", "AT-1"]
    proteins = got.obsm["proteins"]
    assert list(proteins) == ["CD3", "PD-1"] and (proteins.to_numpy() == PROTEINS).all()
    assert list(proteins.index) == list(got.obs_names) and got.uns["units"] == "counts"
    assert got.obs["n_counts"].tolist() == [0, 1, 2, 3]
    got.write_h5ad(tmp_path / "b.h5ad")  # what the cache does with it
    assert list(ad.read_h5ad(tmp_path / "b.h5ad").obsm["proteins"]) == ["CD3", "PD-1"]


@pytest.mark.parametrize(
    "change",
    [
        replaced("X", None),
        replaced("X", COUNTS[:3]),
        replaced("X", COUNTS[:, :2]),
        replaced("X", -COUNTS),
        replaced("X", COUNTS / 2),
        replaced("X", np.where(COUNTS == 7, np.nan, COUNTS)),
        replaced("obs/index", np.array([b"AA-1"] * 4)),
        replaced("obs/n_counts", np.arange(3)),
        replaced("var/index", None),
        replaced("obsm/protein_expression", PROTEINS[:, :1]),
        replaced("obsm/protein_expression", -PROTEINS),
        replaced("uns/protein_names", None),
    ],
    ids=[
        *("no X", "a cell short", "a gene short", "negative", "halves", "NaN", "one name", "an obs short", "no genes"),
        *("an antibody short", "negative antibodies", "no panel"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, change):
    with pytest.raises(DataError, match=r"a\.h5ad"):
        scvi.read([small(tmp_path / "a.h5ad", change)])


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"\x89HDF\r\n\x1a\n" + b"\x00" * 100])
def test_what_is_no_hdf5_is_named(tmp_path, content):
    (tmp_path / "a.h5ad").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.h5ad cannot be read"):
        scvi.read([tmp_path / "a.h5ad"])


@pytest.mark.network
@pytest.mark.parametrize(("name", "total"), [("pbmc5k-protein", 1_351_231), ("pbmc10k-protein", 909_531)])
def test_the_catalogue_tells_the_truth_of_scvi_tools(packaged, name, total):
    entry = catalog()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = scvi.read(packaged(entry))
    assert got.shape == entry.shape and got.uns["units"] == entry.units == "counts"
    assert f"({got.obsm['proteins'].shape[1]} antibodies)" in entry.labels
    assert got.X.sum(dtype=np.float64) == total
    left_out = got.obs["n_counts"] - np.asarray(got.X.sum(1)).ravel()
    assert (left_out >= 0).all() and 0 < left_out.max() < 150, "genes were left out after counting"
    # Cells with the protein of a T cell have its RNA, and monocytes have theirs: rows belong together.
    proteins, rna = np.log1p(got.obsm["proteins"]), pd.DataFrame(got.X.toarray(), columns=got.var_names)
    for protein, gene in (("CD3", "CD3D"), ("CD14", "CD14"), ("CD19", "CD79A")):
        assert np.corrcoef(proteins[protein], np.log1p(rna[gene]))[0, 1] > 0.6, protein
