"""What the readers of text files share: a checked stream of bytes, tables of numbers in blocks, tables of words.

A damaged table seldom looks damaged to a parser: a line cut short is padded, a byte of zeros ends a number early, a
quotation mark swallows the rows up to the next one. Everything here refuses such a file by name.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown

BLOCK = 8_000_000  # numbers a block: 64 MB as float64
PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
}
# Names of a first column: a header that begins so and is one short has lost another column.
CORNERS = re.compile(r"|x|id|name|genes?|gene[._ ]?(id|name|symbol)|symbol|probe.*|transcript.*", re.IGNORECASE)
ODD = r'["\x00-\x1f]'
LARGEST = float(np.finfo(np.float32).max)
MARK = b"\xef\xbb\xbf"  # what some programs write in front of UTF-8
AGAIN = "fetch it again"


class _Checked(io.RawIOBase):
    """Bytes that are text: without the mark in front of UTF-8, refused where they hold a byte of zeros."""

    def __init__(self, source, name: str):
        self._source, self._name, self._start = source, name, True
        self.last = b"\n"

    def readable(self):
        return True

    def readinto(self, buffer):
        got = self._source.read(len(buffer))
        if self._start:
            self._start = False
            got = got.removeprefix(MARK) or (self._source.read(len(buffer)) if got else got)
        if b"\0" in got:
            raise DataError(f"{self._name} holds bytes of zeros, which no text does: it is damaged, {AGAIN}")
        if got:
            self.last = got[-1:]
        buffer[: len(got)] = got
        return len(got)


@contextlib.contextmanager
def refused(path, what: str = "a table"):
    """Every error a library raises on damage becomes a :class:`DataError` that names the file."""
    name = path.name
    try:
        yield
    except DataError:
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile) as e:
        raise DataError(f"{name} is cut short or damaged in its packing ({said(e)}): {AGAIN}") from e
    except UnicodeError as e:
        raise DataError(f"{name} is not UTF-8 text ({said(e)}): it is damaged, or was saved in another encoding") from e
    except pd.errors.ParserError as e:
        raise DataError(f"{name} is damaged, or is no table of this kind: {_fields(e)}; {AGAIN}") from e
    except FileNotFoundError as e:
        raise DataError(f"{name} is not there: check the spelling of {path}") from e
    except (OSError, ValueError, LookupError, TypeError, OverflowError, AttributeError, RuntimeError, csv.Error) as e:
        raise DataError(f"{name} cannot be read as {what} ({said(e)}): a file may be damaged, {AGAIN}") from e


@contextlib.contextmanager
def damaged(path, other: str = "", cure: str = AGAIN):
    """Every error a library raises becomes a :class:`DataError`: the file is damaged, or is not the `other` one."""
    try:
        yield
    except (OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as e:
        raise DataError(f"{path.name} is damaged{other} ({said(e)}): {cure}") from e


def said(e: Exception) -> str:
    """The first line of what an exception says."""
    return (str(e).strip().splitlines() or [type(e).__name__])[0][:200]


def _fields(e) -> str:
    found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(e))
    return f"a row has {found[3]} fields where {found[1]} are due" if found else said(e)


@contextlib.contextmanager
def opened(path, *, whole: bool = True, to_end: bool = True) -> Iterator[io.BufferedReader]:
    """The bytes of a text file, unpacked where they are gzip, whatever the name says.

    Parameters
    ----------
    path : Path or zipfile.Path
        Of a file, or of a member of a zip archive.
    whole : bool
        Refuse an unpacked file whose last line has no end: it was cut there. (Packed ones carry a checksum.)
    to_end : bool
        Read what the caller leaves unread, because the checksum comes last.

    Raises
    ------
    DataError
        If the file is empty, a web page, packed in another way, or damaged.
    """
    with refused(path, "text"), path.open("rb") as raw:
        head = raw.read(512)
        raw.seek(0)
        if not head:
            raise DataError(f"{path.name} is empty: the copy or download may have stopped early")
        source = gzip.GzipFile(fileobj=raw) if head[:2] == b"\x1f\x8b" else raw
        if source is not raw:
            head = source.read(512)
            source.seek(0)
        for magic, what in FOREIGN.items():
            if head.startswith(magic):
                raise DataError(f"{path.name} is {what} where a text table is needed: unpack or save it as UTF-8 text")
        if PAGE.match(head.removeprefix(MARK)):
            raise DataError(f"{path.name} is a web page and no table: the address gave an error page, {AGAIN}")
        checked = _Checked(source, path.name)
        stream = io.BufferedReader(checked, 1 << 20)
        yield stream
        while to_end and stream.read(1 << 20):
            pass
        summed = source is not raw or isinstance(raw, zipfile.ZipExtFile)
        if whole and to_end and not summed and checked.last not in b"\r\n":
            raise DataError(f"{path.name} stops in the middle of a line: it was cut short, {AGAIN}")


def fields(line: bytes, separator: str, path) -> list[str]:
    """The fields of one line, without quotation marks."""
    text = line.decode("utf-8").rstrip("\r\n")
    if not text:
        return []
    (found,) = csv.reader([text], delimiter=separator, strict=True)
    return found


def separator_of(path) -> str:
    """A tab, a comma or a semicolon, whichever the first line has most of; names of files do not tell."""
    with opened(path, to_end=False) as stream:
        line = stream.readline()
    return max("\t,;", key=lambda s: line.count(s.encode()))


# Tables of numbers


@dataclass
class Numbers:
    """A table of numbers: what names its rows, the names of its columns, `X` as float32 (rows × columns)."""

    ids: pd.DataFrame
    columns: pd.Index
    X: object


def header(stream, path, separator: str, ids: int, corner: bool) -> tuple[list[str], list[str]]:
    """The names of the first `ids` fields and of the other columns, from the stream's next line.

    ``corner=True``: the header names every field. False: it names the columns of numbers only, as R writes it.
    """
    names = fields(stream.readline(), separator, path)
    at = ids if corner else 0
    if len(names) <= at:
        other = "tabs" if separator == "," else "commas"
        raise DataError(
            f"{path.name} has {many(len(names), 'field')} in its first line, and {at + 1} or more are needed: "
            f"it is another table, or its fields are parted by {other}"
        )
    return names[:at], names[at:]


def has_corner(path, separator: str) -> bool:
    """True where the header has as many fields as the first row, False where it has one less, as R writes it."""
    with opened(path, to_end=False) as stream:
        first, second = (fields(stream.readline(), separator, path) for _ in range(2))
    named = bool(first and CORNERS.fullmatch(first[0]))
    if len(first) + 1 == len(second) and not named:
        return False
    # A header as R writes it over rows that lost a column is as long as they are, and would name each the next one's.
    if len(first) != len(second) or not named:
        raise DataError(
            f"{path.name} names {many(len(first), 'column')} in its header (the first is {shown(first[:1])}), and its "
            f"first row has {len(second)}: a column was lost or added, {AGAIN}; or say what the header holds (corner)"
        )
    return True


def blocks(stream, path, separator: str, ids: int, width: int, rows: int | None = None) -> Iterator:
    """The rows the stream stands before, some at a time: (`ids` columns of words, float64 or int64 block).

    Raises
    ------
    DataError
        If a row has another number of fields than `width`, or a field that should be a number is none.
    """
    rows = rows or max(16, BLOCK // width)
    # As converters, because dtype= makes pandas wrap each column by itself, five times slower for a wide table.
    options = {"sep": separator, "header": None, "converters": dict.fromkeys(range(ids), str), "low_memory": False}
    # Nothing is taken for missing: an empty field, or NA, makes its column one of words, which is refused below.
    options |= {"keep_default_na": False, "na_filter": False, "encoding": "utf-8"}
    try:
        parts = pd.read_csv(stream, chunksize=rows, **options)
    except pd.errors.EmptyDataError as e:
        raise DataError(f"{path.name} has a header and no rows: it was cut short, {AGAIN}") from e
    with contextlib.suppress(StopIteration):
        while True:
            part = next(parts)
            if part.shape[1] != width:
                raise DataError(
                    f"{path.name} names {many(width, 'column')} in its header, and its rows have {part.shape[1]}: "
                    f"a column was lost or added, {AGAIN}"
                )
            yield _split(part, ids, path)


def _split(part, ids, path):
    names, values = part.iloc[:, :ids], part.iloc[:, ids:]
    odd = [n for name in names for n in names[name][names[name].str.contains(ODD)]]
    if odd:  # a parser lets them pass, and what they are joined with would not know them
        raise DataError(
            f"{path.name} has names with quotation marks or line breaks ({shown(map(repr, odd))}): "
            f"it is damaged, {AGAIN}"
        )
    words, row, found = no_numbers(values)
    if words:
        where = f"row {shown(names.iloc[row, :1]) or row + 1}, field {words[0] + ids + 1}"
        raise DataError(
            f"{path.name}: {found} where a number is needed ({where}; {many(len(words), 'such column')}): "
            f"a row is short or damaged, or this is another table; {AGAIN}"
        )
    return names, values.to_numpy()


def no_numbers(values: pd.DataFrame) -> tuple[list[int], int, str]:
    """Which columns hold something else than numbers, and the row and the words of the first field that does."""
    words = [i for i, d in enumerate(values.dtypes) if d.kind not in "iuf"]
    if not words:
        return words, 0, ""
    text = values.iloc[:, words[0]].astype(str)
    row = int((pd.to_numeric(text, errors="coerce").isna() | text.isin(["True", "False"])).argmax())
    return words, row, f"{text.iloc[row][:40]!r} stands" if text.iloc[row] else "nothing stands"


def sound(block, units: str, names, path):
    """`block`, if it holds what `units` can be: finite in float32, not negative unless logged, whole if counts."""
    wrong, why = ~(np.abs(block) <= LARGEST), "is not finite, or beyond what float32 holds"
    if units not in ("log", "z") and not wrong.any():
        wrong, why = block < 0, f"is negative among {'counts' if units == 'counts' else 'values that are not logged'}"
    if units == "counts" and block.dtype.kind == "f" and not wrong.any():
        wrong, why = block != np.floor(block), "is a fraction among counts"
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        row = shown(names.iloc[[at[0]], 0]) if names.shape[1] else f"{at[0] + 1:,} of a block"
        raise DataError(
            f"{path.name}: {block[at]} {why} (row {row}): "
            "the file is damaged, or holds other values than its reader is told (option units)"
        )
    return block


def numbers(
    path, separator: str, *, ids: int = 1, corner: bool | None = True, units: str = "none", dense: bool = False
) -> Numbers:
    """A whole table of numbers, read in blocks so that no more than one stands in memory as text.

    Parameters
    ----------
    path : Path
        Of the file.
    separator : str
        Between fields.
    ids : int
        Fields at the start of a row that are names.
    corner : bool, optional
        See :func:`header`; None for either, see :func:`has_corner`.
    units : str
        What the values are; see :func:`sound`.
    dense : bool
        Give an ndarray; CSR otherwise.
    """
    if corner is None:
        corner = ids > 1 or has_corner(path, separator)
    with opened(path) as stream:
        named, columns = header(stream, path, separator, ids, corner)
        parts = blocks(stream, path, separator, ids, ids + len(columns))
        names, X = stacked(((n, sound(block, units, n, path)) for n, block in parts), dense)
    names.columns = named or [str(i) for i in range(ids)]
    return Numbers(names, pd.Index(columns, dtype=object), X)


def stacked(parts, dense: bool = False):
    """One table of names and one float32 matrix, CSR unless `dense`, of pairs such as :func:`blocks` yields."""
    from scipy import sparse

    kind = np.asarray if dense else sparse.csr_matrix
    names, numbers = zip(*((n, kind(block, dtype=np.float32)) for n, block in parts))
    X = np.concatenate(numbers) if dense else sparse.vstack(numbers, format="csr")
    return pd.concat(names, ignore_index=True), X


# Tables of words


def words(
    path, separator: str = "\t", *, corner: bool = True, heading: bool = True, quoted: bool = True, whole: bool = True
) -> pd.DataFrame:
    """A table of words, every field as it stands.

    Parameters
    ----------
    path : Path
        Of the file.
    separator : str
        Between fields.
    corner : bool
        False where the header has one field less than the rows, as R writes it; the rows' first field is then called
        ``"name"``.
    heading : bool
        False where the file has none; the columns are then called ``"0"``, ``"1"`` and so on.
    quoted : bool
        False where a quotation mark is a sign like others.
    whole : bool
        See :func:`opened`.

    Returns
    -------
    DataFrame
        Of str. A file that is not UTF-8 is taken for Latin-1, where every byte is a letter.

    Raises
    ------
    DataError
        If the file is damaged, or a row has another number of fields than the header.
    """
    with opened(path, whole=whole) as stream:
        data = stream.read()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        rule = {"strict": True} if quoted else {"quoting": csv.QUOTE_NONE}
        rows = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=separator, **rule) if r]
    names = [str(i) for i in range(len(rows[0]))] if rows else []
    if heading and rows:
        names, rows = ([] if corner else ["name"]) + rows[0], rows[1:]
    if not rows:
        raise DataError(f"{path.name} has no rows: the copy or download may have stopped early")
    for i, row in enumerate(rows):
        if len(row) != len(names):
            raise DataError(
                f"{path.name} has {many(len(row), 'field')} in row {i + 1} where {len(names)} are due: "
                f"it is damaged or another table, {AGAIN}"
            )
    return pd.DataFrame(rows, columns=pd.Index(names, dtype=object), dtype=object)


def column(table: pd.DataFrame, name: str, path) -> pd.Series:
    """A column by name; :class:`DataError` with those there are where it is missing."""
    there = np.flatnonzero(table.columns == name)
    if len(there) != 1:
        found = f"has no column {name!r}" if not len(there) else f"has {len(there)} columns {name!r}"
        raise DataError(f"{path.name} {found}; it has {shown(table.columns)}: {AGAIN}, or correct the name")
    return table.iloc[:, there[0]]
