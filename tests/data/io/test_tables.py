"""Tables of one's own: what people's files hold is read as pandas reads it, or refused with the true cause."""

import gzip

import numpy as np
import pytest
from official_layouts import SYMBOLS, counts, rows, write

from shared.data.errors import DataError
from shared.data.sources import READERS


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz"])
def test_table(tmp_path, name):
    X, separator = counts(3, 4), "\t" if "tsv" in name else ","
    lines = [separator.join(["", *SYMBOLS[:4]]), *rows(([f"c{i}"] for i in range(3)), X, separator)]
    found = READERS["table"]([write(tmp_path / name, lines)])
    assert np.array_equal(found.X, X) and list(found.var_names) == SYMBOLS[:4] and found.X.dtype == np.int64
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


# What people's files hold: the right values as plain pandas reads them, or a refusal that says the true cause.

CSV = "id,TP53,CD3E\nc1,1,2\nc2,4,0\n"
PLAIN = (["c1", "c2"], ["TP53", "CD3E"], [[1, 2], [4, 0]])
OWN = {
    "names with zeros": ("a.csv", "id,TP53,CD3E\n007,1,2\n012,4,0\n", (["007", "012"], *PLAIN[1:])),
    "wells": ("a.csv", "id,TP53,CD3E\n1E05,1,2\n1E06,4,0\n", (["1E05", "1E06"], *PLAIN[1:])),
    "names with points": ("a.csv", "id,TP53,CD3E\n1.10,1,2\n1.20,4,0\n", (["1.10", "1.20"], *PLAIN[1:])),
    "a cell called NA": ("a.csv", "id,TP53,CD3E\nNA,1,2\nA2,4,0\n", (["NA", "A2"], *PLAIN[1:])),
    "1 beside 01": ("a.csv", "id,TP53,CD3E\n1,1,2\n01,4,0\n", (["1", "01"], *PLAIN[1:])),
    "genes called NA and 1.0": ("a.csv", "id,NA,1.0\nc1,1,2\nc2,4,0\n", (PLAIN[0], ["NA", "1.0"], PLAIN[2])),
    "no name of a cell": ("a.csv", "id,TP53,CD3E\nc1,1,2\n,4,0\n", "1 cell without a name"),
    "tabs": ("a.tsv", CSV.replace(",", "\t"), PLAIN),
    "tabs in a csv": ("a.csv", CSV.replace(",", "\t"), PLAIN),
    "commas in a tsv": ("a.tsv", CSV, PLAIN),
    "semicolons": ("a.csv", CSV.replace(",", ";"), PLAIN),
    "blanks, as R writes": ("a.txt", '"TP53" "CD3E"\n"c1" 1 2\n"c2" 4 0\n', PLAIN),
    "quoted fields": ("a.csv", '"id","TP53","CD3E"\n"c1","1","2"\n"c2","4","0"\n', PLAIN),
    "a comma in a quoted name": ("a.csv", '"id","TP53","CD3E"\n"a,b",1,2\nc2,4,0\n', (["a,b", "c2"], *PLAIN[1:])),
    "a mark of UTF-8": ("a.csv", b"\xef\xbb\xbf" + CSV.encode(), PLAIN),
    "line ends of Windows": ("a.csv", CSV.replace("\n", "\r\n"), PLAIN),
    "line ends of old Macs": ("a.csv", CSV.replace("\n", "\r"), PLAIN),
    "empty lines": ("a.csv", CSV.replace("\n", "\n\n"), PLAIN),
    "bars": ("a.txt", CSV.replace(",", "|"), PLAIN),
    "what a spreadsheet is told": ("a.csv", "sep=,\n" + CSV, PLAIN),
    "packed twice": ("a.csv.gz", gzip.compress(gzip.compress(CSV.encode())), "packed twice by gzip"),
    "comments above": ("a.csv", "# made in 2020\n#, by me\n" + CSV, PLAIN),
    "a header that begins with #": ("a.csv", "#" + CSV, PLAIN),
    "a comment below": ("a.csv", CSV + "# the end\n", "has 1 field in row 3 where 3 are due ('# the end')"),
    "an index saved twice": ("a.csv", ",Unnamed: 0,TP53,CD3E\nc1,0,1,2\nc2,1,4,0\n", PLAIN),
    "no index": ("a.csv", "TP53,CD3E\n1,2\n4,0\n", (["0", "1"], *PLAIN[1:])),
    "no index, strange genes": ("a.csv", "g1,g2\n1,2\n1,0\n", "no names of cells: under 'g1' stand numbers"),
    "empty columns behind": ("a.csv", CSV.replace("\n", ",,\n"), PLAIN),
    "gz unpacked on the way": ("a.csv.gz", CSV, PLAIN),
    "packed and not named so": ("a.csv", gzip.compress(CSV.encode()), PLAIN),
    "a row too long": ("a.csv", "id,TP53,CD3E\nc1,1,2,9\nc2,4,0,8\n", "names 3 columns in its header"),
    "one row too long": ("a.csv", CSV + "c3,1,2,3\n", "has 4 fields in row 3 where 3 are due"),
    "a row too short": ("a.csv", CSV + "c3,1\n", "has 2 fields in row 3 where 3 are due"),
    "a byte of zeros": ("a.csv", b"id,TP53,CD3E\nc1,12\x0034,2\nc2,4,0\n", "bytes of zeros"),
    "cut inside a number": ("a.csv", CSV + "c3,7,12"[:-1], "its last number may be cut"),
    "cut in its packing": ("a.csv.gz", gzip.compress(CSV.encode())[:-9], "cut short or damaged in its packing"),
    "no header": ("a.tsv", "TP53\t5\nCD3E\t0\n__no_feature\t9\n", "begins with the row of a gene, 'TP53': write"),
    "no header, tallies first": ("a.tab", "N_unmapped\t5\t5\nENSG00000141510\t3\t2\n", "the row of a gene, 'N_unm"),
    "cells that are numbered": ("a.csv", ",0,1\nTP53,1,2\nCD3E,4,0\n", (["TP53", "CD3E"], ["0", "1"], PLAIN[2])),
    "decimal commas": ("a.csv", "id;TP53;CD3E\nc1;1,5;2,0\nc2;4,0;0,5\n", "with a point before the decimals"),
    "decimal commas between commas": ("a.csv", "id,TP53,CD3E\nc1,1,5,2,0\nc2,4,0,0,5\n", "numbers hold the sign"),
    "a word among numbers": ("a.csv", CSV + "c3,n.d.,2\n", "(TP53; 'n.d.' stands in row c3): write a number there"),
    "thousands": ("a.csv", 'id,TP53,CD3E\nc1,"1,234",2\nc2,4,0\n', "nothing between the thousands"),
    "UTF-16": ("a.csv", CSV.encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": ("a.csv", CSV.encode("utf-16-le"), "UTF-16"),
    "Latin-1": ("a.csv", "id,TP53,CD3E\nMüller,1,2\nc2,4,0\n".encode("latin-1"), "save it as UTF-8"),
    "a spreadsheet": ("a.csv", b"PK\x03\x04" + bytes(99), "a zip archive or a spreadsheet"),
    "empty": ("a.csv", "", "is empty"),
    "a header only": ("a.csv", "id,TP53,CD3E\n", "is empty, 0 cells"),
    "a column of words": ("a.csv", "id,TP53,type\nc1,1,B\nc2,4,T\n", "(type; 'B' stands in row c1): keep only genes"),
    "a value that is missing": ("a.csv", "id,TP53,CD3E\nc1,,2\nc2,4,0\n", "holds 1 NaN value"),
    "a gene twice": ("a.csv", "id,TP53,TP53\nc1,1,2\nc2,4,0\n", 'load(..., duplicates="sum")'),
    "a cell twice": ("a.csv", "id,TP53,CD3E\nc1,1,2\nc1,4,0\n", "names 1 cell more than once (c1)"),
    "more than 64 bits": ("a.csv", f"id,TP53,CD3E\nc1,{10**20},2\nc2,4,0\n", (*PLAIN[:2], [[1e20, 2], [4, 0]])),
    "gct": ("a.gct", "#1.2\n2\t2\nNAME\tDescription\tc1\tc2\nTP53\tx\t1\t4\nCD3E\ty\t2\t0\n", PLAIN),
    "gct cut": ("a.gct", "#1.2\n2\t2\nNAME\tDescription\tc1\tc2\nTP53\tx\t1\t4\n", "says it has 2 rows, and has 1"),
    "gct of version 3": ("a.gct", "#1.3\n2\t2\t0\t0\n", "another version, save it as 1.2"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OWN)
def test_a_table_of_ones_own_is_read_right_or_refused(tmp_path, name):
    from shared import data

    file, content, right = OWN[name]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if isinstance(right, str):
        with pytest.raises(DataError) as e:
            data.load(path)
        assert right in str(e.value) and len(str(e.value)) < 600, str(e.value)
        return
    found = data.load(path)
    assert (list(found.obs_names), list(found.var_names)) == tuple(right[:2])
    assert np.array_equal(found.X, np.array(right[2], np.float32))
    assert np.array_equal(data.load(str(path)).X, found.X)


def test_what_large_counts_lose_is_told(tmp_path):
    from shared import data

    path = write(tmp_path / "a.csv", ["id,TP53,CD3E", "c1,16777217,3", "c2,5,33554435"])
    assert "2 counts above 16,777,216 were rounded by float32" in data.load(path).uns["notes"]


def test_doubt_about_names_of_cells_is_told(tmp_path):
    from shared import data

    with pytest.warns(data.errors.DataWarning, match="names cells by the numbers under 'patient'"):
        data.load(write(tmp_path / "a.csv", ["patient,TP53,CD3E", "1,1,2", "2,4,0"]))


def test_every_argument_that_a_message_names_exists(root):
    """`load(..., this=...)` is a cure only where load has it."""
    import inspect
    import re

    from shared import data

    known, said = set(inspect.signature(data.load).parameters), set()
    for path in [root / "shared/data/load.py", *(root / "shared/data/io").glob("*.py")]:
        said |= set(re.findall(r"load\(\.\.\., (\w+)=", path.read_text(encoding="utf-8")))
    assert {"genome", "feature_type", "layer", "duplicates"} - said <= {"duplicates"} and said <= known
