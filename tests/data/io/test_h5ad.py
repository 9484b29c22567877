"""An h5ad file under other names, and what a damaged one says."""

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from official_layouts import counts
from scipy import sparse

from shared.data import load
from shared.data.errors import DataError
from shared.data.sources import READERS


def test_h5ad_with_other_names(tmp_path):
    from shared.data.routes import _write

    cells = pd.Index(["1", "2", "3"], dtype=object)
    obs = pd.DataFrame({"celltype": ["a", "x", "b"], "tech": ["c", "c", "d"]}, index=cells).astype("category")
    adata = ad.AnnData(np.log1p(counts(3, 4)).astype(np.float32), obs=obs)
    adata.layers["counts"] = counts(3, 4)
    _write(adata, tmp_path / "a.h5ad")
    names = {"cell_type": "celltype", "batch": "tech"}
    found = READERS["h5ad"]([tmp_path / "a.h5ad"], layer="counts", obs=names, units="counts")
    assert np.array_equal(found.X, counts(3, 4)) and found.uns["units"] == "counts"
    assert [None if pd.isna(v) else v for v in found.obs["cell_type"]] == ["a", "x", "b"]
    assert list(found.obs["batch"]) == ["c", "c", "d"] and "celltype" in found.obs
    for wrong in ({"layer": "x"}, {"obs": {"a": "b"}}):
        with pytest.raises(DataError, match=r"a\.h5ad has no"):
            READERS["h5ad"]([tmp_path / "a.h5ad"], **wrong)
    data = (tmp_path / "a.h5ad").read_bytes()
    for changed in (b"", data[:-100], data[: len(data) // 2], b"<html>" * 99):
        (tmp_path / "a.h5ad").write_bytes(changed)
        with pytest.raises(DataError, match=r"a\.h5ad"):
            READERS["h5ad"]([tmp_path / "a.h5ad"])


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("dtype", ["float16", ">f4", ">f8", ">i4", ">i2"])
def test_sparse_values_that_scipy_does_not_hold_are_widened(tmp_path, form, dtype):
    X = np.array([[1, 0, 2], [0, 3, 0]], np.float32)
    made = ad.AnnData(form(X), obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=["TP53", "CD3E", "GNLY"]))
    made.layers["raw"] = form(2 * X)
    made.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        for group in (file["X"], file["layers/raw"]):
            values = group["data"][:].astype(dtype)
            del group["data"]
            group["data"] = values
    before = (tmp_path / "a.h5ad").read_bytes()
    for layer in (None, "raw"):
        found = load(tmp_path / "a.h5ad", layer=layer)
        assert found.X.dtype == np.float32 and (found.X.toarray() == (2 * X if layer else X)).all()
    assert (tmp_path / "a.h5ad").read_bytes() == before
