"""What the readers of very large bulk tables share: chosen rows and columns of a tab-separated table, in blocks."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import many
from shared.data.io.assemble import distinct
from shared.data.io.text import AGAIN, no_numbers, refused

BLOCK = 4_000_000  # fields a block
TAB = b"\t"


def wanted_blocks(stream, path, ids: int, width: int, columns, keep=None, absent=(), due=None) -> Iterator:
    """The rows the stream stands before, some at a time, without quotes: (names, float64 block of `columns`).

    Lines are counted and measured before they are parsed, because a parser that is asked for some columns does not look
    at how long a row is; and a row that nobody wants is not parsed.

    Parameters
    ----------
    stream : BufferedReader
        Of :func:`shared.data.io.text.opened`.
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
    due : int, optional
        Rows there should be.
    """
    rows = max(16, BLOCK // width)
    lines, seen = [], 0
    for line in stream:
        if line in (b"\n", b"\r\n"):
            continue
        seen += 1
        if seen - 1 == due:
            break
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
    if due not in (None, seen):
        raise DataError(f"{path.name} says it has {due:,} genes, and has {seen:,}: it was cut short, {AGAIN}")


def gene_names(ids: pd.DataFrame, names: str, path):
    """The names of the genes by choice: the id without its version, the id, or the symbol where one gene has it."""
    if names == "versioned":
        return ids["id"]
    short = ids["id"].str.replace(r"^(ENS\w*\d+)\.\d+$", r"\1", regex=True) if names == "ensembl" else ids["symbol"]
    return distinct(short, ids["id"], path.name)


def _parsed(lines, path, ids, columns, absent):
    use = [*range(ids), *columns.tolist()]
    options = {"sep": "\t", "header": None, "usecols": use, "converters": dict.fromkeys(range(ids), str), "quoting": 3}
    options |= {"keep_default_na": False, "low_memory": False, "encoding": "utf-8"}
    # Only the numbers may be missing: a gene may well be called NA.
    options |= {"na_values": {c: list(absent) for c in columns.tolist()}} if absent else {"na_filter": False}
    with refused(path):
        part = pd.read_csv(io.BytesIO(b"".join(lines)), **options)
    numbers = part.iloc[:, ids:]
    odd, _, found = no_numbers(numbers)
    if odd:
        raise DataError(
            f"{path.name}: {found} where a number is needed (near row {part.iloc[0, 0]}, field {columns[odd[0]] + 1}): "
            f"it is damaged, or another table; {AGAIN}"
        )
    return part.iloc[:, :ids], numbers.to_numpy(dtype=np.float64)
