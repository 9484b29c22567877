"""Files of a mirror are read by name, and a missing one is named."""

import anndata as ad
import numpy as np
import pytest

from shared.data.errors import DataError
from shared.studies.mirror import read_mirror


def test_files_are_read_by_name_in_the_order_asked_for(tmp_path):
    for i, name in enumerate(("b", "a", "c")):
        ad.AnnData(np.full((2, 2), i, np.float32)).write_h5ad(tmp_path / f"{name}.h5ad")
    sets, hashes = read_mirror(sorted(tmp_path.iterdir()), ["a", "b"])
    assert [*sets] == ["a", "b"] and sets["a"].X[0, 0] == 1 and {*hashes} == {"a", "b"}
    assert len(hashes["a"]) == 64 and hashes["a"] != hashes["b"]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match="a and z are in no folder"):
        read_mirror([tmp_path / "b.h5ad"], ["a", "z"])
