"""What the readers of very large bulk tables share: chosen rows and columns of a tab-separated table, in blocks."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes import many
from shared.data.readers.text import AGAIN, refused

BLOCK = 4_000_000  # fields a block
TAB = b"\t"


def wanted_blocks(stream, path, ids: int, width: int, columns: np.ndarray, keep=None, absent=()) -> Iterator:
    """The rows the stream stands before, some at a time, without quotes: (names, float64 block of `columns`).

    Lines are counted and measured before they are parsed, because a parser that is asked for some columns does not look
    at how long a row is; and a row that nobody wants is not parsed.

    Parameters
    ----------
    stream : BufferedReader
        Of :func:`shared.data.readers.text.opened`.
    path : Path
        For messages.
    ids : int
        Fields at the start of a row that name it.
    width : int
        Fields of a row.
    columns : ndarray of int
        Fields to read, counted from the row's start, rising.
    keep : callable, optional
        From the list of the first `ids` fields (bytes) of a row to whether it is wanted.
    absent : sequence of str
        Words that mean "no value" and become NaN.
    """
    rows = max(16, BLOCK // width)
    lines, seen = [], 0
    for line in stream:
        if line in (b"\n", b"\r\n"):
            continue
        seen += 1
        found = line.count(TAB) + 1
        if found != width:
            raise DataError(
                f"{path.name} has {many(found, 'field')} in row {seen:,} where {width:,} are due: "
                f"it is damaged, {AGAIN}"
            )
        if keep is None or keep(line.split(b"\t", ids)[:ids]):
            lines.append(line)
        if len(lines) >= rows:
            yield _parsed(lines, path, ids, columns, absent)
            lines = []
    if lines:
        yield _parsed(lines, path, ids, columns, absent)
    if not seen:
        raise DataError(f"{path.name} has a header and no rows: it was cut short, {AGAIN}")


def _parsed(lines, path, ids, columns, absent):
    use = [*range(ids), *columns.tolist()]
    options = {"sep": "\t", "header": None, "usecols": use, "converters": dict.fromkeys(range(ids), str), "quoting": 3}
    options |= {"keep_default_na": False, "low_memory": False, "encoding": "utf-8"}
    # Only the numbers may be missing: a gene may well be called NA.
    options |= {"na_values": {c: list(absent) for c in columns.tolist()}} if absent else {"na_filter": False}
    with refused(path):
        part = pd.read_csv(io.BytesIO(b"".join(lines)), **options)
    numbers = part.iloc[:, ids:]
    odd = [i for i, d in enumerate(numbers.dtypes) if d.kind not in "iuf"]
    if odd:
        values = numbers.iloc[:, odd[0]].astype(str)
        value = values[pd.to_numeric(values, errors="coerce").isna() | values.isin(["True", "False"])].iloc[0]
        found = f"{value[:40]!r} stands" if value else "nothing stands"
        raise DataError(
            f"{path.name}: {found} where a number is needed (near row {part.iloc[0, 0]}, field {columns[odd[0]] + 1}): "
            f"it is damaged, or another table; {AGAIN}"
        )
    return part.iloc[:, :ids], numbers.to_numpy(dtype=np.float64)
