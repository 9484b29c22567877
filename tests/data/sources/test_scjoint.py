"""scJoint's files of HDF5: features, cells of one name, and the proteins as others read them."""

import shutil

import numpy as np
import pytest
from official_layouts import CASES, h5ad, read, replaced

from shared.data.errors import DataError
from shared.data.sources import READERS


def test_files_of_other_features_are_refused(tmp_path):
    import h5py

    case = CASES["scjoint"](tmp_path)
    with h5py.File(case.paths[2], "a") as file:
        replaced("matrix/features", np.array([f"P{i}" for i in range(9)], "S"))(file)
    with pytest.raises(DataError, match="names other genes than"):
        read(case)


def test_cells_of_one_name_in_two_files_are_told_apart(tmp_path):
    case = CASES["scjoint"](tmp_path)
    shutil.copy(case.paths[0], case.paths[2])
    assert list(read(case).obs_names[[0, 3]]) == ["cite_AAACATACAACCAC", "asap_AAACATACAACCAC"]


def test_scjoint_proteins(fixtures):
    folder = "official/scJoint_demo_data"
    names = ["citeseq_control_adt.h5", "citeseq_control_cellTypes.csv"]
    names += ["asapseq_control_adt.h5", "asapseq_control_cellTypes.csv"]
    found = READERS["scjoint"](
        [fixtures(f"{folder}/{n}") for n in names], batches=["cite", "asap"], modality=["cite", "asap"]
    )
    for batch, name in (("cite", "pbmc_citeseq_adt_4644"), ("asap", "pbmc_asapseq_adt_4502")):
        known, part = h5ad(fixtures, name), found[(found.obs["batch"] == batch).to_numpy()]
        assert list(part.obs_names) == list(known.obs_names) and list(part.var_names) == list(known.var_names)
        assert abs(part.X - known.X).max() == 0
        assert (part.obs["cell_type"].astype(str) == known.obs["cell_type"].astype(str)).all()
    counts = np.expm1(found.X.data[found.X.data > 0].astype(np.float64))
    assert np.abs(counts / np.rint(counts) - 1).max() < 1e-5, "log(1 + count), as units log says"
