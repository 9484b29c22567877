"""Orthologues are one to one, and a damaged report is refused."""

import pytest
from official_layouts import write

from shared.data.errors import DataError
from shared.data.sources import READERS

REPORT = [
    "DB Class Key\tCommon Organism Name\tNCBI Taxon ID\tSymbol\tEntrezGene ID\tMouse MGI ID",
    *(
        f"{k}\tmouse, laboratory\t10090\t{m}\t1\tMGI:1"
        for k, m in ((1, "Ins1"), (1, "Ins2"), (2, "Gcg"), (3, "Sst"), (5, "Ppy"))
    ),
    *(f"{k}\thuman\t9606\t{h}\t2\t" for k, h in ((1, "INS"), (2, "GCG"), (3, "SST"), (4, "GHRL"), (6, "SST"))),
]


def test_orthologs_are_one_to_one(tmp_path):
    path = write(tmp_path / "HOM_MouseHumanSequence.rpt", REPORT)
    found = READERS["orthologs"]([path])
    assert found.to_dict("list") == {"human": ["GCG", "SST"], "mouse": ["Gcg", "Sst"]}
    assert found.attrs == {"families": 6, "lost": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: [r[0].replace("Symbol", "Name"), *r[1:]], "no column 'Symbol'"),
        (lambda r: [*r, "7\trat\t10116\tIns\t1\t"], "taxa 10116"),
        (lambda r: [*r, "7\thuman\t9606"], "3 fields in row 11 where 6 are due"),
        (lambda r: [*r, "7\thuman\t9606\t\t1\t"], "without a symbol"),
        (lambda r: r[:6], "no family"),
        (lambda r: ["<html><body>"], "web page"),
        (lambda r: r[:1], "no rows"),
    ],
)
def test_a_damaged_report_is_refused(tmp_path, change, message):
    path = write(tmp_path / "HOM_MouseHumanSequence.rpt", change(REPORT))
    with pytest.raises(DataError, match=message):
        READERS["orthologs"]([path])
