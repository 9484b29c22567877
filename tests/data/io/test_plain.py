"""Plain files: an h5ad under other names, and tables as the door reads them."""

import numpy as np
import pandas as pd
import pytest
from official_layouts import SYMBOLS, counts, rows, write

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
    found = READERS["h5ad"]([tmp_path / "a.h5ad"], layer="counts", obs=names, units="counts", missing=["x"])
    assert np.array_equal(found.X, counts(3, 4)) and found.uns["units"] == "counts"
    assert [None if pd.isna(v) else v for v in found.obs["cell_type"]] == ["a", None, "b"]
    assert list(found.obs["batch"]) == ["c", "c", "d"] and "celltype" in found.obs
    for wrong in ({"layer": "x"}, {"obs": {"a": "b"}}):
        with pytest.raises(DataError, match=r"a\.h5ad has no"):
            READERS["h5ad"]([tmp_path / "a.h5ad"], **wrong)
    data = (tmp_path / "a.h5ad").read_bytes()
    for changed in (b"", data[:-100], data[: len(data) // 2], b"<html>" * 99):
        (tmp_path / "a.h5ad").write_bytes(changed)
        with pytest.raises(DataError, match=r"a\.h5ad"):
            READERS["h5ad"]([tmp_path / "a.h5ad"])


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz"])
def test_table(tmp_path, name):
    X, separator = counts(3, 4), "\t" if "tsv" in name else ","
    lines = [separator.join(["", *SYMBOLS[:4]]), *rows(([f"c{i}"] for i in range(3)), X, separator)]
    found = READERS["table"]([write(tmp_path / name, lines)])
    assert np.array_equal(found.X, X) and list(found.var_names) == SYMBOLS[:4] and found.X.dtype == np.float32
    lines[1] = lines[1][:-1] + "x"
    with pytest.raises(DataError, match="words in place of numbers"):
        READERS["table"]([write(tmp_path / name, lines)])


def test_own_tables_are_read_as_the_door_reads_them(tmp_path):
    """One code or two: the same matrix, and the same refusals."""
    from shared import data

    X = counts(3, 4)
    good = [",".join(["", *SYMBOLS[:4]]), *rows(([f"c{i}"] for i in range(3)), X, ",")]
    path = write(tmp_path / "t.csv", good)
    assert np.array_equal(data.from_arrays(READERS["table"]([path]).X, SYMBOLS[:4]).X, X)
    for wrong in ([good[0], good[1], good[1]], [good[0].replace("GCG", "INS"), *good[1:]], good[:1], ["c0", "c1"]):
        path = write(tmp_path / "t.csv", wrong)
        with pytest.raises(DataError) as ours:
            found = READERS["table"]([path])
            data.from_arrays(found.X, list(found.var_names))
        with pytest.raises(DataError) as theirs:
            data.load(path)
        assert type(ours.value) is type(theirs.value)
