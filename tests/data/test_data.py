"""One door: catalogue names and own files in, checked AnnData out, and a clear word for everything refused."""

import gzip
import importlib.util
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from shared import data
from shared.data import DataError, catalogue


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


def test_changing_x_leaves_the_counts(pbmc):
    copy = pbmc.copy()
    copy.X.data[:] = 0
    assert copy.layers["counts"].sum() == pbmc.X.sum() > 0


@pytest.mark.parametrize("name", ["pbmc", "tissues"])
def test_catalogue_tells_the_truth(name):
    entry, adata = data.catalog()[name], data.load(name)
    assert adata.shape == entry.shape and adata.uns["units"] == entry.units
    (route,) = entry.routes
    assert data.bundled_path(entry).stat().st_size == route.size and adata.uns["sha256"] == route.sha256
    assert entry.licence and entry.citation and entry.accession
    folder = data.bundled_path(entry).parent
    assert (folder / "README.md").exists() and (folder / "make.py").exists()


def test_one_flipped_byte_is_noticed(tmp_path, monkeypatch):
    shutil.copytree(catalogue.home(), tmp_path / "data")
    monkeypatch.setattr(catalogue, "home", lambda: tmp_path / "data")
    path = tmp_path / "data" / "tissues" / "tissues.h5ad"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="tissues"):
        data.load("tissues")
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        data.load("tissues")


@pytest.mark.parametrize(("name", "hint"), [("pmbc", "did you mean 'pbmc'"), ("zzz", "or a path to")])
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


def broken(kind, path):
    table = small().to_df()
    if kind == "missing":
        return path.with_name("nowhere.csv")
    if kind == "empty file":
        path.write_text("")
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
        ("nan", "1 values that are NaN"),
        ("infinite", "NaN or infinite"),
        ("words", r"hold words \(cell_type\)"),
        ("gene twice", r"1 genes more than once \(g0\)"),
        ("cell twice", r"1 cells more than once \(c0\)"),
        ("no cells", "is empty: 0 cells"),
        ("no genes", "is empty: 4 cells × 0 genes"),
        ("h5ad that is text", r"cannot be read as \.h5ad"),
        ("cut gzip", r"cannot be read as \.csv"),
        ("spreadsheet", "not a kind of file"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(tmp_path, kind, says):
    with pytest.raises(DataError, match=says):
        data.load(broken(kind, tmp_path / "mine.csv"))


def test_arrays_there_and_back(pbmc):
    X, y, genes = data.to_arrays(pbmc[:50])
    assert X.shape == (50, 11180) and y.dtype.kind == "U" and len(genes) == 11180
    again = data.from_arrays(X, genes, obs={"cell_type": y})
    assert (again.X != X).nnz == 0 and (again.obs["cell_type"] == y).all() and again.uns["units"] == "counts"


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="2 gene names"):
        data.from_arrays(np.ones((2, 3)), ["a", "b"])
    with pytest.raises(DataError, match="one row for each cell"):
        data.from_arrays(np.ones((2, 2)), ["a", "b"], obs={"cell_type": ["x"]})
    with pytest.raises(DataError, match="genes more than once"):
        data.from_arrays(np.ones((2, 2)), ["a", "a"])
    with pytest.raises(DataError, match="no column 'type'; it has cell_type"):
        data.to_arrays(small(), "type")
    nameless = small()
    nameless.obs["cell_type"] = pd.Categorical([None, "b", "a", "b"])
    with pytest.raises(DataError, match="1 cells have no"):
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
        data.catalog()


def test_no_catalogue_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "home", lambda: tmp_path)
    with pytest.raises(DataError, match="no catalogue"):
        data.catalog()


@pytest.mark.parametrize("name", ["pbmc", "tissues"])
def test_a_swapped_wheel_stops_the_making_script(tmp_path, name):
    script = catalogue.home() / name / "make.py"
    spec = importlib.util.spec_from_file_location(f"make_{name}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "other.whl").write_bytes(b"PK")
    with pytest.raises(SystemExit, match="not the file the data came from"):
        module.make(str(tmp_path / "other.whl"))


def test_the_table_reader_refuses_code():
    import io
    import pickle

    spec = importlib.util.spec_from_file_location("make_tissues", catalogue.home() / "tissues" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hostile = pickle.dumps(print)
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"):
        module.TableReader(io.BytesIO(hostile)).load()
