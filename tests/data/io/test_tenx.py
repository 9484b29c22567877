"""10x folders and others of Matrix Market: features, and what a folder may lack."""

import shutil
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from official_layouts import CASES, SYMBOLS, dense, h5ad, read
from scipy import sparse

from shared import data
from shared.data.errors import DataError
from shared.data.sources import READERS


def test_antibodies_beside_genes(tmp_path):
    case = CASES["tenx_v3"](tmp_path)
    assert read(case).n_vars == 7 and "2 features of other types left out" in read(case).uns["notes"][0]
    assert read(case, feature_type=None).n_vars == 9
    assert list(read(case, feature_type="Antibody Capture").var_names) == SYMBOLS[7:]
    with pytest.raises(DataError, match="no features of type 'Peaks'; it has Gene Expression, Antibody Capture"):
        read(case, feature_type="Peaks")


def test_a_folder_lacks_a_file_or_has_two(tmp_path):
    case = CASES["tenx_v2"](tmp_path)
    with pytest.raises(DataError, match="no file of genes"):
        READERS["tenx_mtx"]([case.paths[0], case.paths[2]])
    with pytest.raises(DataError, match="both barcodes"):
        READERS["tenx_mtx"]([*case.paths[:3], case.paths[2]])


def test_files_may_lie_in_any_folder(tmp_path):
    """Names are read from the file's own name, not from its path."""
    folder = tmp_path / "matrix.mtx genes.tsv" / "human1"
    folder.mkdir(parents=True)
    case = CASES["tenx_v2"](tmp_path)
    moved = [Path(shutil.copy(p, folder / p.name)) for p in case.paths[:3]]
    assert np.array_equal(dense(READERS["tenx_mtx"](moved)), case.X)


def test_10x_folder(fixtures):
    folder = "official/derived_10x_layout_pbmc3k/filtered_gene_bc_matrices/hg19"
    paths = [fixtures(f"{folder}/{n}") for n in ("matrix.mtx.gz", "genes.tsv", "barcodes.tsv")]
    found, known = READERS["tenx_mtx"](paths), h5ad(fixtures, "pbmc3k_2638")
    known = known[found.obs_names.str.removesuffix("-1")]
    assert list(found.var_names) == list(known.var_names) and (found.X != known.X).nnz == 0


# A reader's own files of 10x.

ENTRIES = "%%MatrixMarket matrix coordinate integer general\n2 2 2\n1 1 3\n2 2 1\n"
FEATURES = "ENSG00000141510\tTP53\tGene Expression\nENSG00000198851\tCD3E\tGene Expression\n"
CELLS = "AAACCTGAGAAACCAT-1\nAAACCTGAGAAACCGC-1\n"


def own(folder, matrix=ENTRIES, genes=FEATURES, cells=CELLS, start=""):
    folder.mkdir(exist_ok=True)
    for name, text in (("matrix.mtx", matrix), ("features.tsv", genes), ("barcodes.tsv", cells)):
        (folder / f"{start}{name}").write_text(text)
    return folder


@pytest.mark.parametrize("how", ["whole", "matrix", "genes", "cells"])
def test_a_last_line_without_its_end_is_read_where_sizes_agree(tmp_path, how):
    texts = {"matrix": ENTRIES, "genes": FEATURES, "cells": CELLS}
    folder = own(tmp_path / "x", **{k: t.rstrip("\n") if k == how else t for k, t in texts.items()})
    found = data.load(folder)
    assert found.X.toarray().tolist() == [[3, 0], [0, 1]] and list(found.var_names) == ["TP53", "CD3E"]


def test_what_is_cut_or_no_count_is_refused(tmp_path):
    for change, says in (
        ({"cells": CELLS[:-4]}, "shorter than the others: it was cut"),
        ({"matrix": ENTRIES[:-6]}, "says it has 2 entries, and has 1"),
        ({"matrix": ENTRIES.replace("2 2 1", "2 2 1.5")}, "is a fraction among counts"),
        ({"genes": FEATURES.replace("Gene Expression", "Peaks")}, r"load\(\.\.\., feature_type='Peaks'\)"),
    ):
        with pytest.raises(DataError, match=says):
            data.load(own(tmp_path / "x", **change))


def test_entries_of_one_place_are_summed_as_scipy_and_scanpy_do(tmp_path):
    """In both layouts, in a type that has room for the sum, and told."""
    folder = own(tmp_path / "x", ENTRIES.replace("2 2 2\n", "2 2 3\n") + "1 1 4\n")
    path = hdf5(tmp_path / "twice.h5", "hg19")
    with h5py.File(path, "r+") as file:
        group = file["hg19"]
        for name, values in (("data", [200, 100, 5]), ("indices", [0, 0, 1]), ("indptr", [0, 2, 3])):
            del group[name]
            group[name] = np.array(values, "uint8" if name == "data" else "int64")
    for found, X in ((data.load(folder), [[7, 0], [0, 1]]), (data.load(path), [[300, 0], [0, 5]])):
        assert found.X.toarray().tolist() == X and found.X.dtype == np.float32
        assert "1 entry added to another one of the same place" in found.uns["notes"]
    assert data.load(folder).X.toarray().tolist() == scipy.io.mmread(folder / "matrix.mtx").T.toarray().tolist()


@pytest.mark.filterwarnings("ignore")
def test_one_of_several_matrices_in_a_folder(tmp_path):
    for start, n in (("GSM1_", 3), ("GSM2_", 5)):
        own(tmp_path, ENTRIES.replace("1 1 3", f"1 1 {n}"), start=start)
    assert data.load(tmp_path / "GSM2_matrix.mtx").X.toarray().tolist() == [[5, 0], [0, 1]]
    with pytest.raises(DataError, match=r"holds GSM1_matrix\.mtx, GSM2_matrix\.mtx: name one, as load"):
        data.load(tmp_path)
    with pytest.raises(DataError, match="there is one in x"):
        (tmp_path / "y").mkdir()
        own(tmp_path / "y" / "x")
        data.load(tmp_path / "y")


@pytest.mark.filterwarnings("ignore")
def test_kinds_of_features_and_large_counts(tmp_path):
    genes = FEATURES.replace("CD3E\tGene Expression", "CD3\tAntibody Capture")
    folder = own(tmp_path / "x", ENTRIES.replace("1 1 3", "1 1 16777217"), genes)
    assert data.load(folder).shape == (2, 1) and data.load(folder, feature_type="all").shape == (2, 2)
    assert "1 count above 16,777,216 was" in " ".join(data.load(folder).uns["notes"]).replace("were", "was")
    with pytest.raises(DataError, match="leave genome out"):
        data.load(folder, genome="hg19")


def hdf5(path, *genomes):
    with h5py.File(path, "w") as file:
        for name in genomes:
            X, group = sparse.csc_matrix(np.array([[3, 0], [1, 5]])), file.create_group(name)
            group["data"], group["indices"], group["indptr"] = X.data, X.indices, X.indptr
            group["shape"], group["barcodes"] = np.array(X.shape, "int32"), np.array([b"A-1", b"B-1"])
            group["genes"], group["gene_names"] = np.array([b"E1", b"E2"]), np.array([b"TP53", b"CD3E"])
    return path


def test_cures_of_hdf5_can_be_carried_out(tmp_path):
    two = hdf5(tmp_path / "two.h5", "hg19", "mm10")
    with pytest.raises(DataError, match=r"load\(\.\.\., genome='hg19'\)"):
        data.load(two)
    assert data.load(two, genome="mm10").X.toarray().tolist() == [[3, 1], [0, 5]]
    with pytest.raises(DataError, match="holds the genomes hg19, mm10: choose one"):
        data.load(two, genome="rn6")
    with h5py.File(tmp_path / "molecule_info.h5", "w") as file:
        file["count"] = np.arange(3)
        file.create_group("barcode_info")
    with pytest.raises(DataError, match=r"molecules, not their matrix: take filtered_feature_bc_matrix\.h5"):
        data.load(tmp_path / "molecule_info.h5")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4", ">f8", "int8", "uint16", ">i4", "int64", "bool"])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_anndata_of_any_type_and_ending(tmp_path, dtype, form):
    """What it holds decides, not what it is called; indices of 64 bits become those that solvers take."""
    X = np.array([[1, 0, 1], [0, 1, 1]], dtype=dtype)
    if dtype in ("float16", ">f4", ">f8", ">i4") and form is not np.asarray:
        return  # SciPy has no such matrix
    made = ad.AnnData(form(X), var=pd.DataFrame(index=["TP53", "CD3E", "GNLY"]), obs=pd.DataFrame(index=["a", "b"]))
    made.obs["kind"], made.obs["n"] = pd.Categorical(["x", None]), pd.array([1, None], dtype="Int64")
    made.write_h5ad(tmp_path / "mine.h5")
    if form is not np.asarray:
        with h5py.File(tmp_path / "mine.h5", "r+") as file:
            for name in ("X/indices", "X/indptr"):
                values = file[name][:].astype("int64")
                del file[name]
                file[name] = values
    found = data.load(tmp_path / "mine.h5")
    assert np.array_equal(dense(found), X.astype(np.float32)) and found.X.dtype == np.float32
    assert form is np.asarray or found.X.indices.dtype == np.int32
