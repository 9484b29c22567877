"""Lists of genes: their names, their order bound by a hash, and the tables of the names that are known.

:func:`gene_hash` travels with the data in ``uns["gene_hash"]`` and with every saved model. The tables lie in
``data/genes`` (GENCODE 48 and M37; one-to-one orthologues of Ensembl 105) and are read once.
"""

import hashlib
import numbers
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from shared.data.catalogue import home
from shared.data.errors import DataError

SHOWN = 5  # names spelled out in a message
# What cannot stand in a name: it would break the list of genes, one a line, or cannot be written at all.
UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")  # signs without width, which a copied table brings along


def names_of(genes, what: str = "genes") -> list[str]:
    """Names as a list of str, from a list, an index, an array or an AnnData.

    :class:`DataError` if it is no list of names, a name is missing, or a name holds what cannot be written in a line.
    """
    import pandas as pd

    genes = getattr(genes, "var_names", genes)
    # A set would put the names in an order that nobody chose.
    if isinstance(genes, (str, bytes, set, frozenset)) or not isinstance(genes, Iterable):
        raise DataError(f"{what} should be a list of names, not {type(genes).__name__}: put them into a list")
    try:
        found = [g.decode() if isinstance(g, bytes) else g for g in genes]
    except (UnicodeDecodeError, TypeError) as e:
        raise DataError(f"{what} cannot be read as names ({e}): give a list of str") from e
    other = [g for g in found if not isinstance(g, str)]
    missing = sum(pd.api.types.is_scalar(g) and bool(pd.isna(g)) for g in other)
    if missing:
        raise DataError(f"{what} holds {many(missing, 'missing name')}: name every one, or drop it")
    odd = [type(g).__name__ for g in other if not isinstance(g, numbers.Number)]
    if odd:
        raise DataError(f"{what} should be names, and one is of type {odd[0]}: give a list of str")
    found = [str(g) for g in found]
    broken = [g for g in found if UNWRITABLE.search(g)]
    if broken:
        raise DataError(f"{what} holds line breaks or control characters ({shown(map(ascii, broken))}): rename them")
    return found


def many(n: int, what: str) -> str:
    """``many(1, "gene")`` is "1 gene", ``many(2000, "gene")`` "2,000 genes", ``many(2, "entry")`` "2 entries"."""
    return f"{n:,} " + (what if n == 1 else re.sub("(?<![aeiou])y$", "ie", what) + "s")


def shown(names) -> str:
    """The first few names, with an ellipsis if there are more."""
    names = [n if len(n) <= 40 else n[:39] + "…" for n in map(str, names)]
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def tidy(name: str) -> str:
    """A name without spaces around it and without signs that nobody sees."""
    return UNSEEN.sub("", name).strip()


def gene_hash(genes) -> str:
    """SHA-256 of a list of genes or of those of an AnnData, one name a line: the same in another order give another
    hash.

    :class:`DataError` is raised if a name is missing or holds a line break.
    """
    return hashlib.sha256("".join(f"{g}\n" for g in names_of(genes)).encode()).hexdigest()


def stamp(adata, notes=()) -> None:
    """Write the hash of the ordered genes to ``uns["gene_hash"]``, and add `notes` to ``uns["notes"]``."""
    adata.uns["gene_hash"] = gene_hash(adata)
    before = adata.uns.get("notes", ())
    before = [before] if isinstance(before, str) else list(map(str, before))
    adata.uns["notes"] = [*before, *notes]


def once(names, what: str) -> None:
    """Refuse a list that holds a name twice."""
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise DataError(f"{what} names {many(len(twice), 'gene')} more than once ({shown(twice)}): drop the copies")


@cache
def _read_table(path: Path):
    import pandas as pd

    try:
        return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except Exception as e:  # whatever a damaged gzip makes the reader say
        raise DataError(f"the gene table {path.name} cannot be read ({e}): restore it with 'git checkout data'") from e


def pairs(paths):
    """The reader of the catalogue's one table without expression, ``data/genes/orthologs.tsv.gz``."""
    return _read_table(paths[0]).copy()


def gene_table(name: str):
    """The table ``"human"`` or ``"mouse"`` (ensembl, symbol) or ``"orthologs"`` (human, mouse), as DataFrame."""
    if name not in ("human", "mouse", "orthologs"):
        raise DataError(f"there is no gene table {name!r}: choose human, mouse or orthologs")
    return _read_table(_table_path(name)).copy()


@cache
def _of_table(path: Path, key: str, value: str | None = None):
    """The names in a column of a table, or from each that stands there once to another column; never changed."""
    table = _read_table(path)
    if value is None:
        return frozenset(table[key])
    table = table.drop_duplicates(key, keep=False)
    return dict(zip(table[key], table[value]))


def lookup(name: str, key: str, value: str) -> dict[str, str]:
    """From one column of a gene table to another, where that has a single answer; not to be changed."""
    return _of_table(_table_path(name), key, value)


def symbols(organism: str) -> frozenset[str]:
    """Every symbol of ``"human"`` or ``"mouse"``."""
    return _of_table(_table_path(organism), "symbol")


def _table_path(name: str) -> Path:
    return home() / "genes" / f"{name}.tsv.gz"
