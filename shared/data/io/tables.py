"""Tables of text: a checked stream of bytes, numbers in blocks, words, and a reader's own table of cells × genes.

A damaged table seldom looks damaged to a parser: a line cut short is padded, a byte of zeros ends a number early, and a
quotation mark swallows the rows up to the next one. Rows are counted and their fields measured before pandas parses
them, names such as 007 stay as written, and everything that does not fit is refused by name.
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

from shared.data.errors import DataError, warn
from shared.data.genes.kinds import ENSEMBL
from shared.data.genes.lists import many, shown, symbols
from shared.data.io import MISSING, named
from shared.data.validate.names import BESIDE, DESCRIBES, describing
from shared.data.validate.values import is_whole

BLOCK = 4_000_000  # numbers a block
PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
FOREIGN = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"\x1f\x8b": "packed twice by gzip",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
}
# Names of a first column: a header that begins so and is one short has lost another column.
CORNERS = re.compile(
    r"#?(|x|id|index|names?|row\W?names?|unnamed: 0(\.\d+)?|genes?|probe.*|transcript.*|sample.*|cells?|barcodes?"
    r"|symbols?|obs|well|(gene|cell|barcode|spot|donor|patient)[._ ]?(id|name|symbol|barcode)s?)",
    re.IGNORECASE,
)
NAMELESS = re.compile(r"|Unnamed: \d+(\.\d+)?|\.\.\.\d+")  # headings that a program writes for a column that has none
ODD = r'["\x00-\x1f]'
LARGEST = float(np.finfo(np.float32).max)
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
    name = path.name
    try:
        yield
    except DataError:
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile) as e:
        raise DataError(f"{name} is cut short or damaged in its packing ({said(e)}): {AGAIN}") from e
    except UnicodeError as e:
        raise DataError(f"{name} is not UTF-8 text ({said(e)}): it is in another encoding, save it as UTF-8") from e
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RuntimeError, csv.Error) as e:
        raise DataError(f"{name} cannot be read as {what} ({said(e)}): it is another file, or damaged; {AGAIN}") from e


def said(e: Exception) -> str:
    """The first line of what an exception says."""
    return (str(e).strip().splitlines() or [type(e).__name__])[0][:200]


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
            raise DataError(
                f"{path.name} is {what} where a text table is needed: fetch, unpack or save it as UTF-8 text"
            )
        checked = _Checked(source, path.name)
        stream = io.BufferedReader(checked, 1 << 20)
        yield stream
        while to_end and stream.read(1 << 20):
            pass
        # A last line without its end may be whole, and nothing in it tells. A number that was cut (120 to 12) would
        # pass for a measurement and nobody would ever know; a sound file that is refused costs its owner one key.
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
    row, or those at these places; `columns` are the names of the others, which are checked for being what `units` says
    (:func:`sound`) where it is given. `absent` words mean "no value" and become NaN. `due` rows there should be, where
    the file states it. `whose` says what to do where a column holds words.
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
        cure = cure or f"a row is damaged, or this is another table; {AGAIN}"
        if 2 * len(words) > len(columns):
            cure += "; or, as most of its columns are words, this is no matrix of expression"
        if re.fullmatch(r"-?\d+(,\d+)+", value):
            cure = "write numbers with a point before the decimals and nothing between the thousands"
        raise DataError(
            f"{path.name}: {many(len(words), 'column')} with words in place of numbers "
            f"({shown(columns[i] for i in words)}; {stands} in row {shown(names.iloc[row, :1]) or row + 1}): {cure}"
        )
    return values.astype({values.columns[i]: float for i in words}).to_numpy()


def joined(parts, dtype=None, *, dense: bool = True):
    """One table of words and one matrix, ndarray or else CSR, of pairs such as :func:`blocks` yields, one at least."""
    kind = np.asarray if dense else sparse.csr_matrix
    names, values = zip(*((n, kind(block, dtype=dtype)) for n, block in parts))
    X = np.concatenate(values) if dense else sparse.vstack(values, format="csr")
    return pd.concat(names, ignore_index=True), X


def sound(block, units: str, names, path):
    """`block`, if it holds what `units` can be: finite in float32, not negative unless logged, whole if counts."""
    wrong, why = ~(np.abs(block) <= LARGEST), "is not finite, or beyond what float32 holds"
    if units not in ("log", "z") and not wrong.any():
        wrong, why = block < 0, f"is negative among {'counts' if units == 'counts' else 'values that are not logged'}"
    if units == "counts" and not wrong.any():
        wrong, why = ~is_whole(block), "is a fraction among counts"
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        row = shown(names.iloc[[at[0]], 0]) if names.shape[1] else f"{at[0] + 1:,} of a block"
        raise DataError(f"{path.name}: {block[at]} {why} (row {row}): the file is damaged, or holds other values")
    return block


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

    What is not UTF-8 is taken for Latin-1, where every byte is a letter. Without a `heading` the columns are called
    ``"0"``, ``"1"`` and so on; one that is a field shorter than the rows, as R writes it, leaves out the first:
    ``"name"``. Unless `quoted`, a quotation mark is a sign like others. `whole`: see :func:`opened`.
    :class:`DataError` if the file is damaged, or a row has another number of fields than the header.
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
        raise DataError(
            f"{path.name} has {many(len(rows[wrong]), 'field')} in row {wrong + 1} where {len(names)} are due: "
            f"it is damaged or another table, {AGAIN}"
        )
    return pd.DataFrame(rows, columns=pd.Index(names, dtype=object), dtype=object)


def read(paths, *, transposed: bool = False, annotation=()):
    """A table of numbers: the first column names the cells, the first row the genes.

    One file, gzipped or not, its fields parted by commas, tabs, semicolons, blanks or bars. A table written by R, whose
    header names the genes only, is read as well; so is one under lines of comment that begin with ``#``.
    :class:`DataError` if it is damaged, describes cells and holds no expression, a cell stands twice, or a column holds
    words.

    Where `transposed`, rows are genes and columns cells; what is returned has cells in rows. The columns `annotation`
    describe the rows: they go to ``obs``, or to ``var`` where `transposed`. ``X``: int64 or float64 ndarray, rounded by
    the door. Units are not known; missing values are NaN, and genes may stand twice, for the door to judge.
    ``uns["notes"]``: columns that only count the rows and were left out.
    """
    (path,) = paths
    separator, comments = separator_of(path), 0
    with opened(path) as stream:
        lines = (line for line in stream if line != b"\n")
        head, row = next(lines, b""), next(lines, b"")
        # "#id" begins a header: the next line is as long and ends in a number. Other lines with # are comments.
        while head.startswith(ASIDE) and row and not _heads(head, row, separator):
            head, row, comments = row, next(lines, b""), comments + 1
        if not row:
            raise DataError(f"{path.name} is empty, 0 cells below its first line: it was cut short, {AGAIN}")
        corner, genes = parted(fields(head, separator), measure(row, separator), 1, path, any_corner=True)
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
    if _nameless(cells, corner, path):
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
    told = {"duplicated_genes": True, "notes": notes, "var" if transposed else "obs": described}
    return named(X.T, cells, genes, path.name, **told) if transposed else named(X, genes, cells, path.name, **told)


def holds_words(values) -> bool:
    """Whether some of the values that are there are no numbers."""
    return bool(pd.to_numeric(values.dropna().astype(object), errors="coerce").isna().any())


def _heads(head, row, separator) -> bool:
    """Whether `head` is the header of a row that ends in a number; it may leave out the first field."""
    last = fields(row, separator)[-1].strip()
    number = re.fullmatch(r"[-+]?\d+([.,]\d*)?([eE][-+]?\d+)?", last)
    return bool(number) and measure(row, separator) - measure(head, separator) in (0, 1)


def _nameless(cells, corner, path) -> bool:
    """Whether the first column is a gene's, as in a table saved without the names of its cells; doubt is told."""
    if (cells == "").any():
        raise DataError(f"{path.name} has {many(int((cells == '').sum()), 'cell')} without a name: write one for each")
    if not corner or CORNERS.fullmatch(corner[0]) or pd.to_numeric(cells, errors="coerce").isna().any():
        return False
    if corner[0] in symbols("human") | symbols("mouse") or ENSEMBL.match(corner[0]):
        return True
    cure = "save it with a first column of cell names (in pandas, without index=False)"
    if cells.has_duplicates:
        raise DataError(f"{path.name} has no names of cells: under {corner[0]!r} stand numbers, as of a gene; {cure}")
    warn(f"{path.name} names cells by the numbers under {corner[0]!r}: if that is a gene, {cure}")
    return False
