"""Lists of genes: refused where they are none, told apart by their hash, their tables read or missed."""

import numpy as np
import pandas as pd
import pytest
from gene_matrices import matrix

from shared import data
from shared.data.errors import DataError, DataWarning
from shared.data.genes import lists as genes
from shared.data.genes.lists import gene_hash
from shared.preprocess import align_genes, quality_control


def test_the_hash_tells_order_and_names():
    assert gene_hash(["a", "b"]) == gene_hash(pd.Index(["a", "b"])) == gene_hash(matrix("ab"))
    assert len({gene_hash(x) for x in (["a", "b"], ["b", "a"], ["ab"], ["a"], [])}) == 5
    # The hash that models saved before this function moved carry.
    assert gene_hash(["TP53", "CD3E"]) == "69f2b77b4d4511367b3a9c91de5d37c4f94d7cc9eabea6e123568a62e12ad0a4"
    with pytest.raises(DataError, match="line breaks"):
        gene_hash(["a\nb"])


def test_one_definition_of_the_hash():
    from shared.train import saved

    assert saved.gene_hash is gene_hash


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("TP53", "list of names, not str"),
        (7, "not int"),
        ({"TP53", "CD3E"}, "list of names, not set"),
        (frozenset(["TP53"]), "list of names, not frozenset"),
        (["a", None], "1 missing name"),
        (["a", np.nan, pd.NA], "2 missing names"),
        (["a", ("b",)], "type tuple"),
        ([b"\xff"], "cannot be read"),
        (["a\ud800"], "control characters"),
        (np.array(3), "cannot be read"),
    ],
)
def test_what_is_no_list_of_names_is_refused(names, says):
    with pytest.raises(DataError, match=says):
        gene_hash(names)


def test_a_tidy_name_has_no_sign_that_nobody_sees():
    assert [genes.tidy(n) for n in ("TP53", "\u00a0TP53\t", "TP\u200b53\ufeff", "T P53")] == [*["TP53"] * 3, "T P53"]


def test_bytes_and_numbers_are_names_too():
    assert genes.names_of([b"TP53", 7157, np.str_("x"), np.int64(3)]) == ["TP53", "7157", "x", "3"]


def test_the_hash_travels(tmp_path):
    adata = data.from_arrays(np.array([[1, 2, 0], [4, 5, 6]]), ["TP53", "CD3E", "GNLY"])
    assert adata.uns["gene_hash"] == gene_hash(adata)
    aligned, report = align_genes(adata, ["GNLY", "NKG7"])
    assert aligned.uns["gene_hash"] == gene_hash(["GNLY", "NKG7"]) != adata.uns["gene_hash"]
    assert aligned.uns["notes"] == [
        "int64 became float32",
        f"aligned: {report}",
    ] and "2 not in the list, dropped" in str(report)
    assert report.names["missing, filled"] == ("NKG7",)
    kept, report = quality_control(adata, min_genes=0, min_cells=2, max_mito=1)
    assert kept.uns["gene_hash"] == gene_hash(kept) != adata.uns["gene_hash"] and len(kept.uns["notes"]) == 2
    aligned.write_h5ad(tmp_path / "a.h5ad")
    with pytest.warns(DataWarning, match="1 cell without any expression"):
        again = data.load(tmp_path / "a.h5ad")
    assert again.uns["gene_hash"] == gene_hash(aligned) and again.uns["notes"] == aligned.uns["notes"]


def test_tables_that_are_gone_or_damaged_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(genes, "home", lambda: tmp_path)
    with pytest.raises(DataError, match=r"human\.tsv\.gz cannot be read .*git checkout"):
        data.gene_table("human")
    (tmp_path / "genes").mkdir()
    (tmp_path / "genes" / "mouse.tsv.gz").write_bytes(b"\x1f\x8b no gzip")
    with pytest.raises(DataError, match=r"mouse\.tsv\.gz cannot be read"):
        data.gene_table("mouse")
    with pytest.raises(DataError, match="no gene table 'rat'"):
        data.gene_table("rat")
