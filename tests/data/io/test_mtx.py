"""10x folders and others of Matrix Market: features, labels, and what a folder may lack."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from official_layouts import CASES, SYMBOLS, dense, h5ad, read

from shared.data.errors import DataError
from shared.data.sources import READERS


def test_antibodies_beside_genes(tmp_path):
    case = CASES["tenx_v3"](tmp_path)
    assert read(case).n_vars == 7 and "2 features of other types left out" in read(case).uns["notes"][0]
    assert read(case, feature_type=None).n_vars == 9
    assert list(read(case, feature_type="Antibody Capture").var_names) == SYMBOLS[7:]
    with pytest.raises(DataError, match="no features of type 'Peaks'; it has Gene Expression, Antibody Capture"):
        read(case, feature_type="Peaks")


def test_labels_with_other_headings_are_named(tmp_path):
    case = CASES["tenx_v2"](tmp_path)
    path = case.paths[3]
    path.write_bytes(path.read_bytes().replace(b"barcodes\tcelltype", b"code\tkind"))
    with pytest.raises(DataError, match="say which holds the barcodes"):
        read(case)
    found = read(case, barcode="code", obs={"cell_type": "kind", "x": "TSNE.1"}, batch="donor A")
    assert found.obs["cell_type"].astype(object).tolist()[:2] == ["CD19+ B", "CD56+ NK"]
    assert set(found.obs["batch"]) == {"donor A"} and found.obs["x"].notna().sum() == 5


def test_a_folder_lacks_a_file_or_has_two(tmp_path):
    case = CASES["tenx_v2"](tmp_path)
    with pytest.raises(DataError, match="no file of genes"):
        READERS["tenx_mtx"]([case.paths[0], *case.paths[2:]])
    with pytest.raises(DataError, match="both barcodes"):
        READERS["tenx_mtx"]([*case.paths, case.paths[2]])


def test_kang_singlets(tmp_path):
    found = read(CASES["kang"](tmp_path), keep="singlets")
    assert found.n_obs == 5 and set(found.obs["multiplets"]) == {"singlet"} and found.obs["cell_type"].notna().all()


def test_files_may_lie_in_any_folder(tmp_path):
    """Names are read from the file's own name, not from its path."""
    folder = tmp_path / "matrix.mtx genes.tsv" / "human1"
    folder.mkdir(parents=True)
    case = CASES["tenx_v2"](tmp_path)
    moved = [Path(shutil.copy(p, folder / p.name)) for p in case.paths]
    assert np.array_equal(dense(READERS["tenx_mtx"](moved)), case.X)


def test_10x_folder(fixtures):
    folder = "official/derived_10x_layout_pbmc3k/filtered_gene_bc_matrices/hg19"
    paths = [fixtures(f"{folder}/{n}") for n in ("matrix.mtx.gz", "genes.tsv", "barcodes.tsv")]
    found, known = READERS["tenx_mtx"](paths), h5ad(fixtures, "pbmc3k_2638")
    known = known[found.obs_names.str.removesuffix("-1")]
    assert list(found.var_names) == list(known.var_names) and (found.X != known.X).nnz == 0
