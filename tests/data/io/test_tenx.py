"""10x folders and others of Matrix Market: features, and what a folder may lack."""

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
