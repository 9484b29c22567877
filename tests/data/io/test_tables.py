"""Tables of one's own: what people's files hold is read as pandas reads it, or refused with the true cause."""

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
