"""One door: catalogue names and own files in, checked AnnData out, and a clear word for everything refused."""

import gzip
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from shared import data
from shared.data import catalogue, download
from shared.data.catalogue import catalog
from shared.data.constraints import SettingError
from shared.data.errors import DataError, DataWarning
from shared.data.genes.lists import gene_hash
from shared.data.validate.values import may_be_logged

# pandas 3 keeps words in arrays that anndata writes only when told to.
if "allow_write_nullable_strings" in dir(ad.settings):
    ad.settings.allow_write_nullable_strings = True


@pytest.fixture(scope="module")
def pbmc():
    return data.load("pbmc")


def small(n=4, genes=3):
    X = np.arange(n * genes, dtype=np.float32).reshape(n, genes)
    return ad.AnnData(
        X,
        obs=pd.DataFrame({"cell_type": ["a", "b"] * (n // 2)}, index=[f"c{i}" for i in range(n)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(genes)]),
    )


def test_pbmc_is_what_the_book_says(pbmc):
    assert pbmc.shape == (1336, 11180) and pbmc.uns["units"] == "counts"
    assert sparse.issparse(pbmc.X) and pbmc.X.dtype == np.float32
    counts = pd.crosstab(pbmc.obs["cell_type"], pbmc.obs["run"])
    assert counts.sum().to_dict() == {"run1": 513, "run2": 823}
    assert counts.loc["ILC"].tolist() == [2, 11] and len(counts) == 11
    assert pbmc.obs.groupby("run", observed=True)["lane"].nunique().to_dict() == {"run1": 5, "run2": 8}
    assert ((pbmc.X > 0).sum(0).A1 > 0).sum() == 6289 and ((pbmc.X > 0).sum(1).A1 < 200).sum() == 47
    assert sum(pbmc.var_names.str.startswith("MT-")) == 4
    assert (pbmc.X.data == pbmc.X.data.round()).all() and round(1 - pbmc.X.nnz / np.prod(pbmc.shape), 3) == 0.934


def test_the_runs_hold_different_donors(pbmc):
    gene = pbmc.X[:, pbmc.var_names.get_loc("RPS4Y1")].toarray().ravel() / pbmc.X.sum(1).A1 * 1e4
    lanes = pd.Series(np.log1p(gene)).groupby([pbmc.obs["run"].to_numpy(), pbmc.obs["lane"].to_numpy()]).mean()
    assert lanes["run1"].min() > lanes["run2"].max() + 1


def test_tissues_are_what_the_book_says():
    tissues = data.load("tissues")
    assert tissues.shape == (189, 500) and tissues.uns["units"] == "log"
    assert tissues.obs["cell_type"].value_counts().to_dict() == {
        "kidney": 39, "cerebellum": 38, "colon": 34, "hippocampus": 31, "liver": 26, "endometrium": 15, "placenta": 6,
    }  # fmt: skip
    assert len(np.unique(tissues.X, axis=0)) == 185
    assert set(tissues.obs["cell_type"][tissues.to_df().duplicated(keep=False)]) == {"liver"}


def test_changing_x_leaves_the_counts(pbmc):
    copy = pbmc.copy()
    copy.X.data[:] = 0
    assert copy.layers["counts"].sum() == pbmc.X.sum() > 0


@pytest.mark.parametrize("name", ["pbmc", "tissues"])
def test_catalogue_tells_the_truth(name):
    entry, adata = catalog()[name], data.load(name)
    assert adata.shape == entry.shape and adata.uns["units"] == entry.units
    (file,) = entry.route("bundled").files
    path = catalogue.home() / file.name
    assert path.stat().st_size == file.size and adata.uns["sha256"] == file.sha256
    assert entry.licence and entry.citation and entry.accession
    assert (path.parent / "README.md").exists() and (path.parent / "make.py").exists()


def test_one_flipped_byte_is_noticed(tmp_path, monkeypatch):
    shutil.copytree(catalogue.home() / "tissues", tmp_path / "data" / "tissues")
    shutil.copy(catalogue.home() / "catalog.yml", tmp_path / "data")
    for module in (catalogue, download):
        monkeypatch.setattr(module, "home", lambda: tmp_path / "data")
    path = tmp_path / "data" / "tissues" / "tissues.h5ad"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"tissues\.h5ad is not the file the catalogue describes"):
        data.load("tissues")
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        data.load("tissues")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pmbc", "did you mean 'pbmc'"),
        ("PBMC", "did you mean 'pbmc' or"),
        ("gtex", "'gtex-v8' or"),
        ("zzz", "prints all names"),
    ],
)
def test_unknown_name_gets_a_hint(name, hint):
    with pytest.raises(DataError, match=hint):
        data.load(name)


@pytest.mark.parametrize("suffix", [".h5ad", ".csv", ".tsv", ".csv.gz"])
def test_own_files_come_through_the_same_door(tmp_path, suffix):
    path, mine = tmp_path / f"mine{suffix}", small()
    if suffix == ".h5ad":
        mine.write_h5ad(path)
    else:
        mine.to_df().to_csv(path, sep="\t" if suffix == ".tsv" else ",")
    got = data.load(path)
    assert (got.X == mine.X).all() and got.X.dtype == np.float32
    assert list(got.var_names) == ["g0", "g1", "g2"] and list(got.obs_names) == ["c0", "c1", "c2", "c3"]
    assert got.uns["units"] == "counts" and len(got.uns["sha256"]) == 64


def test_a_layer_can_be_x(tmp_path):
    mine = small()
    mine.layers["raw"] = mine.X * 2
    mine.write_h5ad(tmp_path / "m.h5ad")
    assert (data.load(tmp_path / "m.h5ad", layer="raw").X == mine.X * 2).all()
    with pytest.raises(DataError, match="has no layer 'counts'; it has raw"):
        data.load(tmp_path / "m.h5ad", layer="counts")


def tenx(folder):
    """A folder as 10x Genomics writes it: genes × cells, two genes, three cells."""
    folder.mkdir()
    (folder / "genes.tsv").write_text("ENSG00000141510\tTP53\nENSG00000198851\tCD3E\n")
    (folder / "barcodes.tsv").write_text("AAACATACAACCAC-1\nAAACATTGAGCTAC-1\nAAACATTGATCAGC-1\n")
    entries = "1 1 5\n2 2 7\n1 3 1\n2 3 2\n"
    (folder / "matrix.mtx").write_text(f"%%MatrixMarket matrix coordinate integer general\n2 3 4\n{entries}")
    (folder / "web_summary.html").write_text("<html>")
    return folder


def test_a_folder_of_10x_is_read_by_its_name(tmp_path, monkeypatch):
    got = data.load(tenx(tmp_path / "hg19"))
    assert got.X.toarray().tolist() == [[5, 0], [0, 7], [1, 2]] and list(got.var_names) == ["TP53", "CD3E"]
    assert got.uns["units"] == "counts" and len(got.uns["sha256"]) == 64
    monkeypatch.chdir(tmp_path)
    assert data.load("hg19").shape == (3, 2)  # no slash, and no name of the catalogue
    (tmp_path / "hg19" / "barcodes.tsv").unlink()
    with pytest.raises(DataError, match="barcodes"):
        data.load("hg19")
    (tmp_path / "nothing.here").mkdir()
    with pytest.raises(DataError, match=r"nothing\.here is a folder without a matrix\.mtx"):
        data.load("nothing.here")


def test_real_10x_layouts_are_read(fixtures):
    folder = fixtures("official/derived_10x_layout_pbmc3k/filtered_gene_bc_matrices/hg19")
    got = data.load(folder)
    stored = ad.read_h5ad(fixtures("h5ad/pbmc3k_2638.h5ad"))
    assert got.uns["units"] == "counts" and got.uns["gene_hash"] == gene_hash(got)
    stored.obs_names, got.obs_names = (x.obs_names.str.removesuffix("-1") for x in (stored, got))
    genes = got.var_names.intersection(stored.var_names)
    assert got.obs_names.isin(stored.obs_names).all() and len(genes) > 10_000
    assert (got[:, genes].X != stored[got.obs_names, genes].X).nnz == 0


def test_an_h5_of_10x_is_read(tmp_path):
    with h5py.File(tmp_path / "cells.h5", "w") as f:
        group = f.create_group("matrix")
        group["data"], group["indices"] = np.array([5, 7, 1, 2], np.int32), np.array([0, 1, 0, 1], np.int64)
        group["indptr"], group["shape"] = np.array([0, 1, 2, 4], np.int64), np.array([2, 3], np.int32)
        group["barcodes"] = np.array([b"AAACATACAACCAC-1", b"AAACATTGAGCTAC-1", b"AAACATTGATCAGC-1"])
        features = group.create_group("features")
        features["id"], features["name"] = (
            np.array([b"ENSG00000141510", b"ENSG00000198851"]),
            np.array([b"TP53", b"CD3E"]),
        )
        features["feature_type"], features["genome"] = np.array([b"Gene Expression"] * 2), np.array([b"GRCh38"] * 2)
    got = data.load(tmp_path / "cells.h5")
    assert got.X.toarray().tolist() == [[5, 0], [0, 7], [1, 2]] and got.uns["units"] == "counts"


def test_a_route_can_be_chosen(tmp_path):
    assert data.load("tissues", route="bundled").uns["route"] == "bundled"
    with pytest.raises(DataError, match="tissues has no route 'official'; it has bundled"):
        data.load("tissues", route="official")
    small().write_h5ad(tmp_path / "m.h5ad")
    with pytest.raises(DataError, match=r"m\.h5ad is a file of your own and has no route 'bundled'"):
        data.load(tmp_path / "m.h5ad", route="bundled")
    with pytest.raises(DataError, match="pbmc has no layer 'raw'; it has"):
        data.load("pbmc", layer="raw")


def test_a_table_of_names_is_no_expression():
    with pytest.raises(DataError, match=r"holds no expression but names: take shared\.data\.gene_table\('orthologs'\)"):
        data.load("orthologs")


def test_what_was_changed_is_told(tmp_path):
    mine = small()
    mine.X = sparse.csc_matrix(mine.X.astype(np.int64))
    mine.X.data[0] = 0
    mine.write_h5ad(tmp_path / "m.h5ad")
    got = data.load(tmp_path / "m.h5ad")
    assert got.uns["notes"] == ["int64 became float32", "CSC became CSR", "1 stored zero removed"]
    assert got.uns["gene_hash"] == gene_hash(["g0", "g1", "g2"])
    mine.X = np.arange(12, dtype=np.float16).reshape(4, 3)
    mine.write_h5ad(tmp_path / "m.h5ad")
    got = data.load(tmp_path / "m.h5ad")
    assert got.uns["notes"] == ["float16 became float32"] and got.X.dtype == got.layers["counts"].dtype == np.float32
    assert data.load("pbmc").uns["notes"] == []
    assert data.load("colorectal").X.dtype == np.float32


def test_loading_holds_the_matrix_and_its_counts_and_little_more(tmp_path):
    X = np.random.default_rng(0).poisson(1.0, (2000, 5000)).astype(np.float32)  # 40 MB
    for name, mine in (("dense", X), ("sparse", sparse.csr_matrix(X))):
        table = ad.AnnData(mine)
        table.var_names, table.obs_names = [f"g{i}" for i in range(5000)], [f"c{i}" for i in range(2000)]
        table.write_h5ad(tmp_path / f"{name}.h5ad")
        size = X.nbytes if name == "dense" else mine.data.nbytes + mine.indices.nbytes + mine.indptr.nbytes
        tracemalloc.start()
        got = data.load(tmp_path / f"{name}.h5ad")
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        data.check(got)
        looked = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # X, layers["counts"], and a few blocks of a million values.
        assert 1.9 * size < held < 2.1 * size and most < 2 * size + 90e6 and looked - held < 90e6, (name, held, most)
        assert most < 2.9 * size
        if name == "sparse":
            got.X.data[:] = 0
            got.X.eliminate_zeros()  # on shared index arrays this would garble the counts
            assert (got.layers["counts"] != mine).nnz == 0


def broken(kind, path):
    table = small().to_df()
    if kind == "missing":
        return path.with_name("nowhere.csv")
    if kind == "empty file":
        path.write_text("")
    elif kind == "negative counts":
        table.iloc[0, 0] = -1
    elif kind == "h5ad of words":
        path = path.with_suffix(".h5ad")
        small().write_h5ad(path)
        with h5py.File(path, "a") as f:
            del f["X"]
            f.create_dataset("X", data=np.full((4, 3), "x", dtype=object), dtype=h5py.string_dtype())
            f["X"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        return path
    elif kind == "nan":
        table.iloc[0, 0] = np.nan
    elif kind == "infinite":
        table.iloc[0, 0] = np.inf
    elif kind == "words":
        table["cell_type"] = "B"
    elif kind == "gene twice":
        table.columns = ["g0", "g0", "g1"]
    elif kind == "cell twice":
        table.index = ["c0", "c0", "c1", "c2"]
    elif kind == "no cells":
        table = table.iloc[:0]
    elif kind == "no genes":
        table = table.iloc[:, :0]
    elif kind == "h5ad that is text":
        path = path.with_suffix(".h5ad")
        path.write_text("not hdf5")
        return path
    elif kind == "cut gzip":
        path = path.with_name("cut.csv.gz")
        path.write_bytes(gzip.compress(table.to_csv().encode())[:-9])
        return path
    elif kind == "spreadsheet":
        path = path.with_suffix(".xlsx")
        path.write_text("x")
        return path
    if kind != "empty file":
        table.to_csv(path)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "there is no file"),
        ("empty file", "is empty"),
        ("nan", "holds 1 NaN value: fill"),
        ("infinite", "holds 1 infinite value: fill"),
        ("words", r"1 column with words in place of numbers \(cell_type; 'B' stands in row c0\): keep only genes"),
        ("gene twice", r"names 1 gene more than once \(g0\): load\(\.\.\., duplicates=\"sum\"\) adds up"),
        ("cell twice", r"names 1 cell more than once \(c0\)"),
        ("no cells", "is empty, 0 cells"),
        ("no genes", "names 1 column in its header, and a row has 1 field: a column was lost"),
        ("negative counts", "holds 1 negative value among counts"),
        ("h5ad of words", "where numbers are needed|cannot be read"),
        ("h5ad that is text", r"cannot be read as \.h5ad"),
        ("cut gzip", r"cut\.csv\.gz is cut short or damaged in its packing"),
        ("spreadsheet", "no file that is read here: save it as"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(tmp_path, kind, says):
    with pytest.raises(DataError, match=says):
        data.load(broken(kind, tmp_path / "mine.csv"))


def twins(values):
    """Three cells, two genes, the first named twice with another gene between."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique")
        return ad.AnnData(
            np.array(values, np.float32),
            obs=pd.DataFrame(index=["c0", "c1", "c2"]),
            var=pd.DataFrame(index=["g0", "g1", "g0"]),
        )


def written(adata, path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique")
        if path.suffix == ".h5ad":
            adata.X = sparse.csr_matrix(adata.X)
            adata.layers["raw"] = sparse.csr_matrix(adata.X * 2)
            adata.uns["units"] = "log"  # of X in the file, not of the layer
            adata.write_h5ad(path)
        else:
            sep = "\t" if ".tsv" in path.name else ","
            rows = [["", *adata.var_names], *([c, *row] for c, row in zip(adata.obs_names, adata.X.astype(int)))]
            path.write_text("\n".join(sep.join(map(str, row)) for row in rows) + "\n")
    return path


COUNTS = [[1, 2, 3], [0, 5, 7], [4, 0, 0]]


@pytest.mark.parametrize("name", ["mine.csv", "mine.tsv", "mine.h5ad"])
@pytest.mark.parametrize(("duplicates", "first"), [("sum", [4, 7, 4]), ("first", [1, 0, 4])])
def test_genes_named_twice_are_merged_where_asked(tmp_path, name, duplicates, first):
    path = written(twins(COUNTS), tmp_path / name)
    layer = {"layer": "raw"} if name.endswith("h5ad") else {}
    got = data.load(path, duplicates=duplicates, **layer)
    want = np.column_stack([first, [2, 5, 0]]) * (2 if layer else 1)
    for X in (got.X, got.layers["counts"]):
        assert np.array_equal(X.toarray() if sparse.issparse(X) else X, want)
    assert list(got.var_names) == ["g0", "g1"] and got.uns["gene_hash"] == gene_hash(["g0", "g1"])
    assert got.uns["units"] == "counts" and any("1 added to" in n or "1 left out" in n for n in got.uns["notes"])
    with pytest.raises(DataError, match=rf"^{name} names 1 gene more than once \(g0\): load\(\.\.\., duplicates="):
        data.load(path, **layer)


@pytest.mark.parametrize("kind", [np.array, sparse.csr_matrix])
def test_arrays_of_genes_named_twice_are_merged_where_asked(kind):
    got = data.from_arrays(kind(np.array(COUNTS)), ["g0", "g1", "g0"], duplicates="sum")
    want = data.from_arrays(kind(np.array([[4, 2], [7, 5], [4, 0]])), ["g0", "g1"])
    assert list(got.var_names) == ["g0", "g1"] and got.uns["sha256"] == want.uns["sha256"]
    for X, Y in ((got.X, want.X), (got.layers["counts"], want.layers["counts"])):
        assert X.dtype == np.float32 and np.array_equal(*(m.toarray() if sparse.issparse(m) else m for m in (X, Y)))


def test_merging_says_what_it_cannot_do(tmp_path):
    logged = twins([[0.1, 1.2, 0.3], [0.4, 2.5, 0.6], [0.7, 0.8, 1.9]])
    path = tmp_path / "mine.h5ad"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique")
        logged.write_h5ad(path)
    with pytest.raises(DataError, match=r"^mine\.h5ad: .*cannot be summed.*choose duplicates='first'"):
        data.load(path, duplicates="sum")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert np.array_equal(data.load(path, duplicates="first").X, logged.X[:, :2])
    logged.X[0, 0] = np.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names are not unique")
        logged.write_h5ad(path)
    for way in ("sum", "first"):
        with pytest.raises(DataError, match=r"^mine\.h5ad holds 1 NaN value"):
            data.load(path, duplicates=way)
    for call in (lambda **how: data.load("pbmc", **how), lambda **how: data.from_arrays(np.ones((1, 1)), ["a"], **how)):
        with pytest.raises(SettingError, match="duplicates='max' is not known: choose sum, refuse, first"):
            call(duplicates="max")


def test_a_path_of_no_name_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^'' is not in the catalogue"):
        data.load("")
    for name in (".", "/"):
        with pytest.raises(DataError, match=rf"^{re.escape(name)} is a folder without a matrix\.mtx"):
            data.load(name)


@pytest.mark.parametrize("name", ["MINE.CSV", "Mine.Tsv.GZ"])
def test_capitals_in_the_ending_are_read(tmp_path, name):
    table = small().to_df()
    table.to_csv(tmp_path / name, sep="," if "CSV" in name else "\t")
    found = data.load(tmp_path / name)
    assert np.array_equal(found.X, table.to_numpy()) and list(found.var_names) == list(table.columns)


def test_arrays_there_and_back(pbmc):
    X, y, genes = data.to_arrays(pbmc[:50])
    assert X.shape == (50, 11180) and y.dtype.kind == "U" and len(genes) == 11180
    again = data.from_arrays(X, genes, obs={"cell_type": y})
    assert (again.X != X).nnz == 0 and (again.obs["cell_type"] == y).all() and again.uns["units"] == "counts"


def test_counts_that_a_program_wrote_with_a_rest_are_counts():
    """Float32 does not know the rest, and neither does the reader of the table."""
    made = data.from_arrays(np.array([[525.000000000001, 0], [2, 3.0]]), ["a", "b"])
    assert made.uns["units"] == "counts" and made.X[0, 0] == 525 and made.layers["counts"][0, 0] == 525
    assert data.from_arrays(np.array([[525.01, 0], [2, 3.0]]), ["a", "b"]).uns["units"] == "unknown"


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="2 gene names"):
        data.from_arrays(np.ones((2, 3)), ["a", "b"])
    with pytest.raises(DataError, match="one row for each cell"):
        data.from_arrays(np.ones((2, 2)), ["a", "b"], obs={"cell_type": ["x"]})
    with pytest.raises(DataError, match=r"gene more than once \(a\): from_arrays\(\.\.\., duplicates=\"sum\"\)"):
        data.from_arrays(np.ones((2, 2)), ["a", "a"])
    with pytest.raises(DataError, match="no column 'type'; it has cell_type"):
        data.to_arrays(small(), "type")
    nameless = small()
    nameless.obs["cell_type"] = pd.Categorical([None, "b", "a", "b"])
    with pytest.raises(DataError, match="no label for 1 cell: drop"):
        data.to_arrays(nameless)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"routes": []}, "missing"), ({"routes": [{"kind": "carrier pigeon"}]}, "entry 'x'"), ({"titel": "x"}, "titel")],
)
def test_a_malformed_entry_is_named(tmp_path, monkeypatch, change, says):
    import yaml

    entry = yaml.safe_load((catalogue.home() / "catalog.yml").read_text())["tissues"] | change
    (tmp_path / "catalog.yml").write_text(yaml.safe_dump({"x": entry}))
    monkeypatch.setattr(catalogue, "home", lambda: tmp_path)
    with pytest.raises(DataError, match=says):
        catalog()


def test_no_catalogue_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "home", lambda: tmp_path)
    with pytest.raises(DataError, match="no catalogue"):
        catalog()


def test_a_table_written_by_r_keeps_its_first_gene(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("NA,g1,g2\nc0,1,2,3\nc1,2,0,1\n")  # as write.table does: no field above the cells
    got = data.load(path)
    assert got.shape == (2, 3) and list(got.var_names) == ["NA", "g1", "g2"]


def test_counts_that_r_wrote_with_fifteen_digits_are_counts(tmp_path):
    (tmp_path / "t.csv").write_text(
        "cell,A,B,C\nc1,0.0,0.999999999999999,32.0000000000001\nc2,2.99999999999999,0.0,1.0\nc3,4.0,0.0,0.0\n"
    )
    adata = data.load(tmp_path / "t.csv", units="counts")
    assert adata.uns["units"] == "counts" and data.load(tmp_path / "t.csv").uns["units"] == "counts"
    assert adata.to_df().to_numpy().tolist() == [[0, 1, 32], [3, 0, 1], [4, 0, 0]]
    nearly = adata.X.astype(float) * 0.999999999999999
    assert data.check(ad.AnnData(nearly)).looks == "counts" and not may_be_logged(nearly)
    (tmp_path / "t.csv").write_text("cell,A,B\nc1,0.9999999,2\nc2,1,1\n")
    with pytest.raises(DataError, match="1 fraction"):
        data.load(tmp_path / "t.csv", units="counts")


def test_units_an_own_file_states_are_believed_and_checked(tmp_path):
    mine = small()
    mine.X, mine.uns["units"] = np.log1p(mine.X) - 1, "log"
    mine.write_h5ad(tmp_path / "m.h5ad")
    assert data.load(tmp_path / "m.h5ad").uns["units"] == "log"
    mine.X, mine.uns["units"] = mine.X + 1, "counts"
    mine.write_h5ad(tmp_path / "m.h5ad")
    with pytest.raises(DataError, match=r"should hold counts, but has \d+ fractions"):
        data.load(tmp_path / "m.h5ad")


def test_counts_layer_follows_the_layer_x_was_read_from(tmp_path):
    mine = small()
    mine.layers["counts"], mine.layers["raw"] = mine.X, mine.X * 2
    mine.write_h5ad(tmp_path / "m.h5ad")
    got = data.load(tmp_path / "m.h5ad", layer="raw")
    assert (got.layers["counts"] == got.X).all() and (got.X == mine.X * 2).all()


@pytest.mark.parametrize("name", ["pbmc", "tissues"])
def test_making_again_gives_the_same_bytes(tmp_path, name):
    folder = os.environ.get("BORROWED_WHEELS")
    if not folder:
        pytest.skip("set BORROWED_WHEELS to a folder with the wheels named in data/*/make.py")
    module = script(name)
    project, version = module.WHEEL[0].split("==")
    (wheel,) = Path(folder).glob(f"{project}-{version}-*.whl")
    new = tmp_path / f"{name}.h5ad"
    module.write(module.make(str(wheel)), new)
    ours, again = data.load(name), ad.read_h5ad(new)
    assert (again.to_df() == ours.to_df()).all(axis=None) and again.obs.equals(ours.obs)
    versions = {p: importlib.metadata.version(p) for p in ("anndata", "h5py", "pandas")}
    if versions == {"anndata": "0.12.19", "h5py": "3.14.0", "pandas": "2.3.3"}:
        assert new.read_bytes() == (catalogue.home() / catalog()[name].routes[0].files[0].name).read_bytes()


@pytest.mark.network
@pytest.mark.nightly
def test_an_installed_copy_carries_its_data(tmp_path, root):
    def pip(*words):
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
        return subprocess.run(command, cwd=root, capture_output=True, text=True)

    here = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    built = pip("wheel", "--no-deps", *here, "--wheel-dir", str(tmp_path), str(root))
    if built.returncode and not here and "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("hatchling is not installed, and the package index cannot be reached")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert pip("install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)).returncode == 0
    code = "import shared, shared.data as d; a = d.load('pbmc'); print(shared.__file__, a.shape, a.uns['sha256'])"
    where = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(tmp_path / "site")}}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **where).stdout
    assert said.split() == f"{tmp_path}/site/shared/__init__.py (1336, 11180) {catalog()['pbmc'].sha256}".split()


def script(name):
    spec = importlib.util.spec_from_file_location(f"make_{name}", catalogue.home() / name / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["pbmc", "tissues"])
def test_a_swapped_wheel_stops_the_making_script(tmp_path, name):
    module = script(name)
    (tmp_path / "other.whl").write_bytes(b"PK")
    with pytest.raises(SystemExit, match="not the file the data came from"):
        module.make(str(tmp_path / "other.whl"))


def test_the_table_reader_refuses_code():
    import io
    import pickle

    module = script("tissues")
    hostile = pickle.dumps(print)
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"):
        module.TableReader(io.BytesIO(hostile)).load()


def test_a_table_with_genes_in_rows_is_turned(tmp_path):
    X = np.array([[0, 1, 2], [3, 4, 5]], np.float32)
    straight, turned = tmp_path / "straight.csv", tmp_path / "turned.tsv"
    pd.DataFrame(X, index=["c0", "c1"], columns=["g0", "g1", "g2"]).to_csv(straight)
    pd.DataFrame(X.T, index=["g0", "g1", "g1"], columns=["c0", "c1"]).to_csv(turned, sep="\t")
    got, expected = data.load(turned, transpose=True, duplicates="sum"), data.load(straight)
    assert got.obs_names.tolist() == expected.obs_names.tolist() and got.var_names.tolist() == ["g0", "g1"]
    assert got.X.tolist() == [[0, 3], [3, 9]] and got.uns["gene_hash"] == gene_hash(["g0", "g1"])
    assert "turned" in got.uns["notes"][-1]
    expected.T.write_h5ad(tmp_path / "turned.h5ad")
    again = data.load(tmp_path / "turned.h5ad", transpose=True)
    assert again.X.tolist() == X.tolist() and again.layers["counts"].tolist() == X.tolist()


def test_units_can_be_told(tmp_path):
    pd.DataFrame([[0, 1.5], [2.5, 4]], index=["c0", "c1"], columns=["g0", "g1"]).to_csv(tmp_path / "a.csv")
    assert data.load(tmp_path / "a.csv").uns["units"] == "unknown"
    assert data.load(tmp_path / "a.csv", units="log").uns["units"] == "log"
    with pytest.raises(DataError, match="should hold counts, but has 2 fractions"):
        data.load(tmp_path / "a.csv", units="counts")
    with pytest.raises(ValueError, match=r"units='lgo' is not known: .*; did you mean 'log'"):
        data.load(tmp_path / "a.csv", units="lgo")
    for option in ({"units": "log"}, {"transpose": True}):
        with pytest.raises(DataError, match="is for files of your own, and pbmc is of the catalogue: leave"):
            data.load("pbmc", **option)


def test_a_series_matrix_is_told_by_its_name(tmp_path):
    lines = ['!Sample_title\t"a"\t"b"', '!Sample_geo_accession\t"GSM1"\t"GSM2"', "!series_matrix_table_begin"]
    lines += [
        '"ID_REF"\t"GSM1"\t"GSM2"',
        '"1007_s_at"\t7.5\t8.5',
        '"1053_at"\t6.5\t9.5',
        "!series_matrix_table_end",
        "",
    ]
    (tmp_path / "GSE1_series_matrix.txt").write_text("\n".join(lines))
    got = data.load(tmp_path / "GSE1_series_matrix.txt", units="log")
    assert got.shape == (2, 2) and got.obs["title"].tolist() == ["a", "b"] and got.uns["units"] == "log"


def test_the_names_of_the_package_come_when_they_are_used(root):
    """Whatever is imported first, and `load` stays the function although a module has its name."""
    code = "from shared.data.load import to_arrays\nimport shared.data.load\nassert callable(shared.data.load)\n"
    code += "from shared.data import load\nassert callable(load)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0
    assert all(getattr(data, name).__name__.split(".")[-1] == name for name in data.__all__)
    assert set(data.__all__) <= set(dir(data))
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        data.lod  # noqa: B018
