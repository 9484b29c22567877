"""Tabula Muris: annotations and archives that do not belong together."""

import pytest
from official_layouts import CASES

from shared.data.errors import DataError
from shared.data.sources import READERS


def test_annotations_of_the_other_technology_are_refused(tmp_path):
    with pytest.raises(DataError, match="none of the cells"):
        READERS["tabula_muris"]([CASES["facs"](tmp_path).paths[0], CASES["droplet"](tmp_path).paths[1]])
