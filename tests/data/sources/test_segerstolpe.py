"""Segerstolpe: RPKM beside counts, spike-ins, and cells that the authors left out."""

import numpy as np
from official_layouts import CASES, dense, read


def test_rpkm_beside_counts(tmp_path):
    case = CASES["segerstolpe"](tmp_path)
    found = read(case, values="rpkm")
    assert found.uns["units"] == "none" and np.allclose(dense(found), np.round(case.X * 1.37, 2))
    good = read(case, keep="good")
    assert good.n_obs == 5 and good.obs["cell_type"].notna().all() and "1 cell left out" in good.uns["notes"][0]
    assert list(read(case).var["spike_in"]) == [False] * 7 + [True, False]
