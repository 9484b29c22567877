"""Cells inside published packages, sorted cells in ten folders: readers, and what the catalogue says of them."""

import gzip
import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from shared import data
from shared.data import DataError, routes
from shared.data.readers import READERS, beads, scvi

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


def replaced(name, value):
    def change(file):
        del file[name]
        if value is not None:
            file[name] = value

    return change


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
    with pytest.raises(DataError, match=r"a\.h5ad is damaged"):
        scvi.read([tmp_path / "a.h5ad"])


@pytest.mark.network
@pytest.mark.parametrize(("name", "total"), [("pbmc5k-protein", 1_351_231), ("pbmc10k-protein", 909_531)])
def test_the_catalogue_tells_the_truth_of_scvi_tools(packaged, name, total):
    entry = data.catalog()[name]
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


@pytest.fixture(scope="module")
def immune(packaged):
    return READERS["table"](packaged(data.catalog()["celltypist-immune"]))


@pytest.mark.network
@pytest.mark.slow
def test_the_catalogue_tells_the_truth_of_celltypist(immune, fixtures):
    entry = data.catalog()["celltypist-immune"]
    assert immune.shape == entry.shape and "cell_type" not in immune.obs
    assert (immune.X % 1 == 0).all() and immune.X.min() == 0 and list(immune.obs_names[:2]) == ["Cell_1", "Cell_2"]
    known = ad.read_h5ad(fixtures("h5ad/celltypist_sample_immune_559.h5ad"))
    assert list(known.var_names) == list(immune.var_names) and (known.X.toarray() == immune.X).all()


@pytest.mark.network
@pytest.mark.slow
def test_celltypist_loads_by_name(packaged, immune, tmp_path, monkeypatch):
    """By the whole way: archive, member, reader, cache and door."""
    entry = data.catalog()["celltypist-immune"]
    packaged(entry)
    monkeypatch.setenv("BORROWED_CACHE", str(tmp_path))
    monkeypatch.setattr(routes, "readers", lambda: {"table": lambda paths: immune.copy()})
    got = data.load("celltypist-immune")
    assert got.shape == entry.shape and got.uns["units"] == "counts" and "counts" in got.layers


# Sorted with beads.

GENES = [("ENSG1", "CD3D"), ("ENSG2", "LYZ"), ("ENSG3", "GNLY"), ("ENSG4", "LYZ")]


def folder(path, X, genes=GENES, cells=None):
    path.mkdir(parents=True)
    io.mmwrite(path / "matrix.mtx", sparse.coo_matrix(X.T.astype(int)), field="integer")
    (path / "genes.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in genes))
    (path / "barcodes.tsv").write_text("".join(f"{c}\n" for c in cells or [f"AAACATACAC{i}-1" for i in range(len(X))]))
    return [path / n for n in ("matrix.mtx", "genes.tsv", "barcodes.tsv")]


def test_populations_are_put_together(tmp_path):
    rng = np.random.default_rng(0)
    B, T = rng.poisson(1, (3, 4)), rng.poisson(1, (2, 4))
    got = beads.read(folder(tmp_path / "b", B) + folder(tmp_path / "t", T), populations=["B", "T"])
    assert (got.X.toarray() == np.vstack([B, T])).all() and got.X.format == "csr"
    assert got.obs["cell_type"].tolist() == got.obs["batch"].tolist() == ["B"] * 3 + ["T"] * 2
    # The first barcode stands in both folders.
    assert list(got.obs_names) == [f"{p}:AAACATACAC{i}-1" for p, n in (("B", 3), ("T", 2)) for i in range(n)]
    assert list(got.var_names) == ["CD3D", "ENSG2", "GNLY", "ENSG4"] and got.uns["units"] == "counts"
    by_id = beads.read(folder(tmp_path / "c", B), populations=["B"], names="id")
    assert list(by_id.var_names) == ["ENSG1", "ENSG2", "ENSG3", "ENSG4"]


def test_populations_that_do_not_fit_are_refused(tmp_path):
    one = folder(tmp_path / "a", np.ones((2, 4)))
    other = folder(tmp_path / "b", np.ones((2, 4)), genes=[*GENES[:3], ("ENSG9", "CD8A")])
    with pytest.raises(DataError, match=r"genes of T are not those of B"):
        beads.read(one + other, populations=["B", "T"])
    with pytest.raises(DataError, match="3 files were given for 2 populations"):
        beads.read(one, populations=["B", "T"])
    with pytest.raises(DataError, match="0 files were given for 0 populations"):
        beads.read([], populations=[])
    (one[0]).write_bytes(gzip.compress(b"x"))
    with pytest.raises(DataError, match=r"matrix\.mtx"):
        beads.read(one, populations=["B"])


def test_the_sorted_cells_come_by_their_official_files(tmp_path, monkeypatch):
    """Ten archives of the stated names and members in a mirror are read by the entry."""
    import tarfile

    entry = data.catalog()["zheng-beads"]
    route = entry.route("official")
    assert len(route.files) == len(route.options["populations"]) == 10
    for i, file in enumerate(route.files):
        folder(tmp_path / str(i), np.full((2, 4), i + 1))
        with tarfile.open(tmp_path / file.name, "w:gz") as archive:
            for member in file.members:
                archive.add(tmp_path / str(i) / member.rpartition("/")[2], member)
    monkeypatch.setenv("BORROWED_MIRROR", str(tmp_path))
    monkeypatch.setenv("BORROWED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BORROWED_OFFLINE", "1")
    got = routes.obtain(entry, "official", progress=False)
    assert got.shape == (20, 4) and got.obs["cell_type"].nunique() == 10
    values = dict(zip(got.obs["cell_type"].astype(str), got.X[:, 0].toarray().ravel()))
    assert values["CD19+ B"] == 1 and values["CD56+ NK"] == 8 and values["CD8+/CD45RA+ Naive Cytotoxic"] == 10


def test_sorted_cells_have_the_names_of_the_unsorted_ones():
    """zheng68k is labelled by likeness to these, so a model of one is tested on the other by name."""
    catalog = data.catalog()
    sorted_cells = set(catalog["zheng-beads"].route("official").options["populations"])
    other = set(catalog["zheng68k"].route("simulated").options["labels"])
    assert other - sorted_cells == {"Dendritic"} and sorted_cells <= other
