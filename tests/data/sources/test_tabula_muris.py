"""Tabula Muris: organs, annotated cells, and archives that were unpacked."""

import numpy as np
import pytest
from official_layouts import CASES, dense

from shared.data.errors import DataError
from shared.data.sources import READERS


def test_annotations_of_the_other_technology_are_refused(tmp_path):
    with pytest.raises(DataError, match="none of the cells"):
        READERS["tabula_muris"]([CASES["facs"](tmp_path).paths[0], CASES["droplet"](tmp_path).paths[1]])


def test_unpacked_organs(tmp_path):
    import zipfile

    case = CASES["facs"](tmp_path)
    with zipfile.ZipFile(case.paths[0]) as z:
        z.extractall(tmp_path)
    found = READERS["tabula_muris"]([*sorted((tmp_path / "FACS").glob("*.csv")), case.paths[1]])
    assert np.array_equal(dense(found), case.X) and list(found.obs_names) == case.cells
