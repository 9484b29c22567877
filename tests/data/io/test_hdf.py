"""10x and scJoint files of HDF5: genomes, features, and cells of one name."""

import numpy as np
import pytest
from official_layouts import CASES, dense, h5ad, read

from shared.data.errors import DataError
from shared.data.sources import READERS


def test_hdf5_of_several_genomes(tmp_path):
    import h5py

    case = CASES["h5_v2"](tmp_path)
    with h5py.File(case.paths[0], "a") as f:
        f.copy("GRCh38", "mm10")
    with pytest.raises(DataError, match="holds the genomes GRCh38, mm10: name one"):
        read(case)
    assert np.array_equal(dense(read(case, genome="mm10")), case.X)
    with pytest.raises(DataError, match="no genome 'hg19'"):
        read(case, genome="hg19")


def test_files_of_other_features_are_refused(tmp_path):
    one, two = CASES["h5_v3"](tmp_path), CASES["h5_v2"](tmp_path)
    assert READERS["tenx_h5"]([*one.paths, *two.paths]).n_obs == 12  # the same cells in both: named by file
    (tmp_path / "x").mkdir()
    three = CASES["scjoint"](tmp_path / "x")
    with pytest.raises(DataError, match="other features"):
        READERS["tenx_h5"]([*one.paths, *three.paths])


def test_cells_of_one_name_in_two_files_are_told_apart(tmp_path):
    one, two = CASES["h5_v3"](tmp_path), CASES["h5_v2"](tmp_path)
    found = READERS["tenx_h5"]([*one.paths, *two.paths], batches=["a", "b"])
    assert list(found.obs_names[[0, 6]]) == ["a_AAACATACAACCAC-1", "b_AAACATACAACCAC-1"]


def test_scjoint_proteins(fixtures):
    folder = "official/scJoint_demo_data"
    names = ["citeseq_control_adt.h5", "citeseq_control_cellTypes.csv"]
    names += ["asapseq_control_adt.h5", "asapseq_control_cellTypes.csv"]
    found = READERS["tenx_h5"](
        [fixtures(f"{folder}/{n}") for n in names], batches=["cite", "asap"], modality=["cite", "asap"]
    )
    for batch, name in (("cite", "pbmc_citeseq_adt_4644"), ("asap", "pbmc_asapseq_adt_4502")):
        known, part = h5ad(fixtures, name), found[(found.obs["batch"] == batch).to_numpy()]
        assert list(part.obs_names) == list(known.obs_names) and list(part.var_names) == list(known.var_names)
        assert abs(part.X - known.X).max() == 0
        assert (part.obs["cell_type"].astype(str) == known.obs["cell_type"].astype(str)).all()
    counts = np.expm1(found.X.data[found.X.data > 0].astype(np.float64))
    assert np.abs(counts / np.rint(counts) - 1).max() < 1e-5, "log(1 + count), as units log says"
