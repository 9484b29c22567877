"""Names of genes: a name of two genes stands for neither."""

import numpy as np
import pytest
from official_layouts import CASES, HUMAN, dense, read

from shared.data.errors import DataError
from shared.data.io.assemble import distinct


def test_a_name_of_two_genes_stands_for_neither():
    found = distinct(["A", "B", "A", "NA", "", "E"], ["a1", "b1", "a2", "c1", "d1", "B"], "f.tsv")
    assert list(found) == ["a1", "B", "a2", "c1", "d1", "E"]
    with pytest.raises(DataError, match=r"f\.tsv names 1 gene more than once"):
        distinct(["A", "A"], ["a", "a"], "f.tsv")


def test_a_full_name_that_is_another_genes_short_name_is_kept_apart():
    assert list(distinct(["A", "A", "a2"], ["a1", "a2", "x"], "f")) == ["a1", "a2", "x"]


@pytest.mark.parametrize("name", ["tenx_v2", "kang", "h5_v3", "h5_v2"])
def test_genes_by_id(tmp_path, name):
    case = CASES[name](tmp_path)
    found = read(case, names="id")
    assert list(found.var_names) == HUMAN and np.array_equal(dense(found), case.X)
    assert list(found.var["symbol"]) != list(found.var["id"])
