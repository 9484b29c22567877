"""Tables of text: a checked stream of bytes, numbers in blocks, words, and a reader's own table of cells × genes.

To a parser a damaged table seldom looks damaged: it pads a line cut short, ends a number at a byte of zeros, and skips
rows up to the next quotation mark. So rows are counted and their fields measured before pandas parses them.
"""

import contextlib
import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from itertools import chain, islice

import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io import named
from shared.data.validate.names import BESIDE, CORNERS, DESCRIBES, MISSING, describing, headless, unnamed
from shared.data.validate.values import sound

BLOCK = 4_000_000  # numbers a block
PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
FOREIGN = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"\x1f\x8b": "packed twice by gzip",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
}
NAMELESS = re.compile(r"|Unnamed: \d+(\.\d+)?|\.\.\.\d+")  # headings that a program writes for a column that has none
ODD = r'["\x00-\x1f]'
MARK = b"\xef\xbb\xbf"  # what some programs write in front of UTF-8
AGAIN = "fetch it again"
ASIDE = (b"#", b"sep=")  # how lines begin that are no row: comments, and what a spreadsheet is told by


class _Checked(io.RawIOBase):
    """Bytes that are text: with one kind of line end, refused where they hold a byte of zeros."""

    def __init__(self, source, name: str):
        self._source, self._name, self.last = source, name, b"\n"

    def readable(self):
        return True

    def readinto(self, buffer):
        got = self._source.read(len(buffer))
        if b"\0" in got:
            raise DataError(f"{self._name} holds bytes of zeros, which no text does: it is damaged, {AGAIN}")
        # A pair of them that is parted here leaves an empty line, which every reader leaves out.
        got = got.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self.last = got[-1:] or self.last
        buffer[: len(got)] = got
        return len(got)


@contextlib.contextmanager
def refused(path, what: str = "a table"):
    """Every error a library raises on damage becomes a :class:`DataError` that names the file."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as e:
        said = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
        wrong, cure = f"cannot be read as {what} ({said})", f"it is another file, or damaged; {AGAIN}"
        if isinstance(e, (EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile)):
            wrong, cure = f"is cut short or damaged in its packing ({said})", AGAIN
        elif isinstance(e, UnicodeError):
            wrong, cure = f"is not UTF-8 text ({said})", "it is in another encoding, save it as UTF-8"
        raise DataError(f"{path.name} {wrong}: {cure}") from e


@contextlib.contextmanager
def opened(path, *, whole: bool = True, to_end: bool = True) -> Iterator[io.BufferedReader]:
    """The text of a file or of a member of a zip archive, unpacked where it is gzip, whatever the name says.

    :class:`DataError` if it is empty, a web page, packed in another way, or damaged; with `whole` also if its last line
    has no end. `to_end` reads what the caller leaves unread, because the checksum of a packed file comes last.
    """
    with refused(path), path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        source = gzip.GzipFile(fileobj=raw) if packed else raw
        head = source.read(512)
        source.seek(len(MARK) if head.startswith(MARK) else 0)
        if not head:
            raise DataError(f"{path.name} is empty: the copy or download may have stopped early")
        what = next((w for magic, w in FOREIGN.items() if head.startswith(magic)), None)
        what = "a web page" if PAGE.match(head.removeprefix(MARK)) else what
        if max(head[::2].count(0), head[1::2].count(0)) > 0.4 * len(head) > 0.6 * head.count(0):
            what = what or "UTF-16 text"
        if what:
            raise DataError(f"{path.name} is {what} and no table of text: fetch, unpack or save it as UTF-8 text")
        checked = _Checked(source, path.name)
        stream = io.BufferedReader(checked, 1 << 20)
        yield stream
        while to_end and stream.read(1 << 20):
            pass
        # A number that was cut (120 to 12) would pass for a measurement; a whole file refused costs its owner one key.
        summed = packed or isinstance(raw, zipfile.ZipExtFile)
        if whole and to_end and not summed and checked.last != b"\n":
            raise DataError(f"{path.name} stops within a line, so its last number may be cut: {AGAIN}, or end the line")


def fields(line: bytes, separator: str) -> list[str]:
    """The fields of one line, without quotation marks."""
    return next(csv.reader([line.decode("utf-8").rstrip("\n")], delimiter=separator, strict=True), [])


def measure(line: bytes, separator: str) -> int:
    """How many fields a line has, a separator between quotation marks being none; 0 where such a mark is alone."""
    sign = separator.encode()
    if b'"' not in line:
        return line.count(sign) + 1
    parts = line.split(b'"')
    return sum(part.count(sign) for part in parts[::2]) + 1 if len(parts) % 2 else 0


def separator_of(path) -> str:
    """What parts the fields: a tab, comma, semicolon, blank or bar that stands as often in the first two lines."""
    with opened(path, to_end=False) as stream:
        lines = (line for line in stream if line.strip() and not line.startswith(ASIDE))
        header, row = [*islice(lines, 2), b"", b""][:2]
    known = ",\t; |" if ".csv" in path.name.lower() else "\t,; |"
    widths = {s: (measure(header, s), measure(row, s)) for s in known}
    # R leaves out the first field of a header.
    fits = [s for short in (0, 1) for s, (above, below) in widths.items() if above + short == below > 1]
    return fits[0] if fits else max(known[:3], key=lambda s: widths[s][0])


def blocks(rows, path, separator: str, ids, columns, units=None, *, absent=(), due=None, whose="") -> Iterator:
    """The rows of numbers, some at a time: (DataFrame of the fields that are words, int64 or float64 block).

    `rows` are lines, such as the stream of :func:`opened`. `ids` are the fields of words: so many at the start of a
    row, or those at these places. `columns` are the names of the others, checked by `units` where given.
    `absent` words become NaN; `due` rows are stated; `whose` is the cure where a column holds words.
    :class:`DataError` if a row has another number of fields, or a field that should be a number is none.
    """
    ids = tuple(range(ids)) if isinstance(ids, int) else ids
    width, seen = len(ids) + len(columns), 0

    def measured():
        nonlocal seen
        for seen, line in enumerate((line for line in rows if line != b"\n"), 1):
            if due is not None and seen > due:
                raise DataError(f"{path.name} says it has {many(due, 'row')}, and has more: it is damaged, {AGAIN}")
            if (found := measure(line, separator)) != width:
                what = many(found, "field") if found else "a quotation mark without its partner"
                start = f"({line[:40].decode('utf-8', 'replace').strip()!r}): correct the row, or {AGAIN}"
                raise DataError(f"{path.name} has {what} in row {seen:,} where {width:,} are due {start}")
            yield line

    # As converters, because dtype= makes pandas wrap each column by itself, five times slower for a wide table.
    options = {"sep": separator, "header": None, "converters": dict.fromkeys(ids, str), "low_memory": False}
    # Nothing else is taken for missing: an empty field, or NA, makes its column one of words, which is refused below.
    options |= {"keep_default_na": False, "na_values": list(absent), "na_filter": bool(absent), "encoding": "utf-8"}
    lines = measured()
    while part := list(islice(lines, max(16, BLOCK // width))):
        table = pd.read_csv(io.BytesIO(b"".join(part)), **options)
        if whose:  # one's own table may hold true and false
            table = table.astype(dict.fromkeys(table.select_dtypes("bool").columns, int))
        names, values = table[list(ids)], table.drop(columns=list(ids))
        odd = [n for name in names for n in names[name][names[name].str.contains(ODD)]]
        if odd:  # a parser lets them pass, and what they are joined with would not know them
            raise DataError(f"{path.name} has names with quotes or line breaks ({shown(map(ascii, odd))}): {AGAIN}")
        values = _numbers(values, names, path, columns, whose)
        yield names, values if units is None else sound(values, units, names, path)
    if not seen or due not in (None, seen):
        said = "has a header and no rows" if due is None else f"says it has {due:,} rows, and has {seen:,}"
        raise DataError(f"{path.name} {said}: it was cut short, {AGAIN}")


def _numbers(values, names, path, columns, cure):
    """The columns of one block as a matrix; words in place of numbers are refused, and told."""
    words = [i for i, d in enumerate(values.dtypes) if d.kind not in "iuf"]
    for i in words:
        text = values.iloc[:, i].astype(str)
        wrong = pd.to_numeric(text, errors="coerce").isna() | text.isin(["True", "False"])
        if not wrong.any():  # whole numbers of more than 64 bits
            continue
        row = int(wrong.argmax())
        value = text.iloc[row]
        stands = f"{value[:40]!r} stands" if value else "nothing stands"
        cure = "write a number there" if cure and wrong.mean() < 0.5 else cure
        cure = cure or f"a row is damaged, or this is another table; {AGAIN}"
        if 2 * len(words) > len(columns):
            cure += "; or, as most of its columns are words, this is no matrix of expression"
        if re.fullmatch(r"-?\d+(,\d+)+", value):
            cure = "write numbers with a point before the decimals and nothing between the thousands"
        found = f"{many(len(words), 'column')} with words in place of numbers ({shown(columns[i] for i in words)}"
        raise DataError(f"{path.name}: {found}; {stands} in row {shown(names.iloc[row, :1]) or row + 1}): {cure}")
    return values.astype({values.columns[i]: float for i in words}).to_numpy()


def joined(parts, dtype=None, *, dense: bool = True):
    """One table of words and one matrix, ndarray or else CSR, of pairs such as :func:`blocks` yields, one at least."""
    kind = np.asarray if dense else sparse.csr_matrix
    names, values = zip(*((n, kind(block, dtype=dtype)) for n, block in parts))
    X = np.concatenate(values) if dense else sparse.vstack(values, format="csr")
    return pd.concat(names, ignore_index=True), X


def parted(header: list[str], width: int, ids: int, path, any_corner: bool = False) -> tuple[list[str], list[str]]:
    """The names in a header of the first `ids` fields (none where it leaves the one out, as R does), and the others."""
    corner = bool(header and CORNERS.fullmatch(header[0]))
    if ids == 1 and len(header) + 1 == width and not (corner and header[0]):
        return [], header
    # A header as R writes it over rows that lost a column is as long as they are, and would name each the next one's.
    if len(header) != width or width <= ids or not (corner or any_corner or ids > 1):
        said = f"{path.name} names {many(len(header), 'column')} in its header, and a row has {many(width, 'field')}"
        raise DataError(f"{said}: a column was lost or added, or numbers hold the sign that parts the fields; {AGAIN}")
    return header[:ids], header[ids:]


def words(path, separator: str | None = None, *, heading: bool = True, quoted: bool = True, whole: bool = True):
    """A table of words as a DataFrame of str, every field as it stands.

    What is not UTF-8 is taken for Latin-1. Without a `heading` the columns are called ``"0"``, ``"1"`` and so on; the
    first is ``"name"`` where a heading leaves it out, as R does. Unless `quoted`, a quotation mark is a sign like
    others. `whole`: see :func:`opened`. :class:`DataError` if the file is damaged, or a row has more or fewer fields.
    """
    separator = separator or separator_of(path)
    with opened(path, whole=whole) as stream:
        data = stream.read()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        rule = {"strict": True} if quoted else {"quoting": csv.QUOTE_NONE}
        rows = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=separator, **rule) if r]
    if len(rows) <= heading:
        raise DataError(f"{path.name} has no rows: the copy or download may have stopped early")
    names = rows.pop(0) if heading else [str(i) for i in range(len(rows[0]))]
    names = ["name"] * (len(names) + 1 == len(rows[0])) + names
    wrong = next((i for i, row in enumerate(rows) if len(row) != len(names)), None)
    if wrong is not None:
        found = f"{many(len(rows[wrong]), 'field')} in row {wrong + 1} where {len(names)} are due"
        raise DataError(f"{path.name} has {found}: it is damaged or another table, {AGAIN}")
    return pd.DataFrame(rows, columns=pd.Index(names, dtype=object), dtype=object)


def beginning(stream, separator: str) -> tuple[bytes, bytes, Iterator[bytes], int]:
    """The header of a table, its first row (empty where there is none), the other lines, and how many were comments."""
    lines, comments = (line for line in stream if line != b"\n"), 0
    head, row = next(lines, b""), next(lines, b"")
    # "#id" begins a header: the next line is as long and ends in a number. Other lines with # are comments.
    while head.startswith(ASIDE) and row and not _heads(head, row, separator):
        head, row, comments = row, next(lines, b""), comments + 1
    return head, row, lines, comments


def read(paths, *, transposed: bool = False, annotation=()):
    """A table of numbers: the first column names the cells, the first row the genes.

    One file, gzipped or not, its fields parted by commas, tabs, semicolons, blanks or bars; its header may name the
    genes only, as R writes it, and stand under lines of comment that begin with ``#``. :class:`DataError` if it is
    damaged, describes cells and holds no expression, a cell stands twice, or a column holds words.

    Where `transposed`, rows are genes and columns cells. The columns `annotation` describe the rows: they go to
    ``obs``, or to ``var`` where `transposed`. ``X``: int64 or float64 ndarray, cells × genes, missing values NaN, genes
    perhaps twice, for the door to judge. ``uns["notes"]``: columns that only count the rows and were left out.
    """
    (path,) = paths
    separator = separator_of(path)
    with opened(path) as stream:
        head, row, lines, comments = beginning(stream, separator)
        if not row:
            raise DataError(f"{path.name} is empty, 0 cells below its first line: it was cut short, {AGAIN}")
        corner, genes = parted(fields(head, separator), measure(row, separator), 1, path, any_corner=True)
        if headless(corner, genes):
            raise DataError(f"{path.name} begins with the row of a gene, {corner[0]!r}: write the names above it")
        if missing := [c for c in annotation if c not in genes]:
            raise DataError(f"{path.name} has no column {missing[0]!r}; it has {shown(genes)}: name another")
        at = (0, *(1 + genes.index(c) for c in annotation))
        genes = [gene for i, gene in enumerate(genes, 1) if i not in at]
        if described := describing(genes):
            raise DataError(f"{path.name} {DESCRIBES.format(names=shown(described))}: {BESIDE}")
        told = {"absent": tuple(MISSING), "whose": "keep only genes, labels go into obs"}
        names, X = joined(blocks(chain([row], lines), path, separator, at, genes, **told))
    cells, described = pd.Index(names.pop(0), dtype=object), names.set_axis(list(annotation), axis=1)
    notes = [f"{many(comments, 'line')} of comment left out"] * bool(comments)
    if unnamed(cells, corner, path):
        X, genes = np.column_stack([pd.to_numeric(cells), X]), corner + genes
        cells = pd.RangeIndex(len(cells)).astype(str)
        notes.append("there were no names of cells, so they are numbered")
    # An index that was saved a second time, or the empty columns behind a spreadsheet's last.
    nameless = {i: X[:, i] for i, gene in enumerate(genes) if NAMELESS.fullmatch(gene)}
    counting = [i for i, v in nameless.items() if np.isnan(v).all() or (v[0] in (0, 1) and (np.diff(v) == 1).all())]
    X, genes = np.delete(X, counting, axis=1), pd.Index(np.delete(np.array(genes, dtype=object), counting))
    if counting:
        left = many(len(counting), "column")
        notes.append(f"{left} without a name, which only count the rows or are empty, left out")
    described = described.replace("", np.nan).apply(lambda c: c if holds_words(c) else pd.to_numeric(c))
    if transposed:
        X, genes, cells = X.T, cells, genes
    told = {"duplicated_genes": True, "notes": notes, "var" if transposed else "obs": described}
    return named(X, genes, cells, path.name, **told)


def holds_words(values) -> bool:
    """Whether some of the values that are there are no numbers."""
    return bool(pd.to_numeric(values.dropna().astype(object), errors="coerce").isna().any())


def _heads(head, row, separator) -> bool:
    """Whether `head` is the header of a row that ends in a number; it may leave out the first field."""
    last = fields(row, separator)[-1].strip()
    number = re.fullmatch(r"[-+]?\d+([.,]\d*)?([eE][-+]?\d+)?", last)
    return bool(number) and measure(row, separator) - measure(head, separator) in (0, 1)
