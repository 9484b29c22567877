"""Cells sorted with beads, in ten folders: put together under the names that other sets use."""

import gzip

import numpy as np
import pytest
from scipy import io, sparse

from shared.data import routes
from shared.data.catalogue import catalog
from shared.data.errors import DataError
from shared.data.sources import zheng

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
    got = zheng.beads(folder(tmp_path / "b", B) + folder(tmp_path / "t", T), populations=["B", "T"])
    assert (got.X.toarray() == np.vstack([B, T])).all() and got.X.format == "csr"
    assert got.obs["cell_type"].tolist() == got.obs["batch"].tolist() == ["B"] * 3 + ["T"] * 2
    # The first barcode stands in both folders.
    assert list(got.obs_names) == [f"{p}:AAACATACAC{i}-1" for p, n in (("B", 3), ("T", 2)) for i in range(n)]
    assert list(got.var_names) == ["CD3D", "ENSG2", "GNLY", "ENSG4"] and got.uns["units"] == "counts"
    assert list(got.var["id"]) == ["ENSG1", "ENSG2", "ENSG3", "ENSG4"]


def test_populations_that_do_not_fit_are_refused(tmp_path):
    one = folder(tmp_path / "a", np.ones((2, 4)))
    other = folder(tmp_path / "b", np.ones((2, 4)), genes=[*GENES[:3], ("ENSG9", "CD8A")])
    with pytest.raises(DataError, match="folder of T names other genes than the folder of B"):
        zheng.beads(one + other, populations=["B", "T"])
    with pytest.raises(DataError, match="3 files were given for 2 populations"):
        zheng.beads(one, populations=["B", "T"])
    with pytest.raises(DataError, match="0 files were given for 0 populations"):
        zheng.beads([], populations=[])
    (one[0]).write_bytes(gzip.compress(b"x"))
    with pytest.raises(DataError, match=r"matrix\.mtx"):
        zheng.beads(one, populations=["B"])


def test_the_sorted_cells_come_by_their_official_files(tmp_path, monkeypatch):
    """Ten archives of the stated names and members in a mirror are read by the entry."""
    import tarfile

    entry = catalog()["zheng-beads"]
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
    routes.files(entry, route, unverified=True)
    got = routes.obtain(entry, "official", progress=False)
    assert got.shape == (20, 4) and got.obs["cell_type"].nunique() == 10
    values = dict(zip(got.obs["cell_type"].astype(str), got.X[:, 0].toarray().ravel()))
    assert values["CD19+ B"] == 1 and values["CD56+ NK"] == 8 and values["CD8+/CD45RA+ Naive Cytotoxic"] == 10


def test_sorted_cells_have_the_names_of_the_unsorted_ones():
    """zheng68k is labelled by likeness to these, so a model of one is tested on the other by name."""
    entries = catalog()
    sorted_cells = set(entries["zheng-beads"].route("official").options["populations"])
    other = set(entries["zheng68k"].route("simulated").options["labels"])
    assert other - sorted_cells == {"Dendritic"} and sorted_cells <= other
