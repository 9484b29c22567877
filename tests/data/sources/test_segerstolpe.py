"""Segerstolpe: RPKM beside counts, spike-ins."""

from official_layouts import CASES, read


def test_counts_are_told_from_the_rpkm_beside_them(tmp_path):
    found = read(CASES["segerstolpe"](tmp_path))
    assert found.uns["units"] == "counts" and list(found.var["spike_in"]) == [False] * 7 + [True, False]
