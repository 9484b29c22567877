"""An h5ad file under other names, and what a damaged one says."""

import numpy as np
import pandas as pd
import pytest
from official_layouts import counts

from shared.data.errors import DataError
from shared.data.sources import READERS


def test_h5ad_with_other_names(tmp_path):
    import anndata as ad

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
