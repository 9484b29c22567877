"""Names of genes: which kind they are, from one kind to another, from mouse to human and back, and what got lost.

A list of genes has an order, and :func:`gene_hash` binds it: the same names in another order give another hash. It
travels with the data in ``uns["gene_hash"]`` and with every saved model.

The tables lie in ``data/genes`` (GENCODE 48 and M37; one-to-one orthologues of Ensembl 105) and are read once.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from shared.data.catalogue import home
from shared.data.errors import DataError

if TYPE_CHECKING:
    import anndata as ad

SHOWN = 5  # names spelled out in a message
KEPT = 20  # names of lost genes that a report keeps
DUPLICATES = ("sum", "refuse", "first")
# What cannot stand in a name: it would break the list of genes, one a line, or cannot be written at all.
UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Species, number, the number of an older copy on Y (ENSGR), and today's mark of such a copy.
ENSEMBL = re.compile(r"ENS([A-Z]*)G(?:(\d{11})|R(\d{10}))(?:\.\d+)?(_PAR_Y)?$")
PATTERNS = {
    "ensembl": ENSEMBL.pattern,
    "transcripts": r"(?:ENS[A-Z]*T\d{11}|[NX][MR]_\d+)(?:\.\d+)?(?:_PAR_Y)?$",
    "entrez": r"[1-9]\d{0,8}$",
    "probes": r"(?:\w+_(?:[a-z]_)?at|AFFX-\S+|ILMN_\d+|A_\d+_P\d+)$",
    "regions": r"(?:chr)?(?:\d{1,2}|[XYM]|MT|GL\S+|KI\S+)[-:_]\d+[-_]\d+$",
}
# Families whose old names spreadsheets take for dates, and which were therefore renamed in 2020.
FAMILIES = {
    "MARCH": ("MARCHF", set(range(1, 12))),
    "SEPT": ("SEPTIN", {*range(1, 13), 14}),
    "MARC": ("MTARC", {1, 2}),
    "DEC": ("DELEC", {1}),
}
MONTHS = {
    "mar": ("MARCH", "MARC"),
    "mär": ("MARCH", "MARC"),
    "march": ("MARCH", "MARC"),
    "sep": ("SEPT",),
    "sept": ("SEPT",),
    "dec": ("DEC",),
    "dez": ("DEC",),
}


def names_of(genes, what: str = "genes") -> list[str]:
    """Names as a list of str, from a list, an index, an array or an AnnData.

    Raises
    ------
    DataError
        If it is no list of names, a name is missing, or a name holds what cannot be written in a line.
    """
    import pandas as pd

    genes = getattr(genes, "var_names", genes)
    if isinstance(genes, (str, bytes)) or not isinstance(genes, Iterable):
        raise DataError(f"{what} should be a list of names, not {type(genes).__name__}: put them into a list")
    try:
        found = [g.decode() if isinstance(g, bytes) else g for g in genes]
    except (UnicodeDecodeError, TypeError) as e:
        raise DataError(f"{what} cannot be read as names ({e}): give a list of str") from e
    odd = next((g for g in found if not isinstance(g, str) and not _one_number(g)), None)
    missing = sum(not isinstance(g, str) and pd.api.types.is_scalar(g) and bool(pd.isna(g)) for g in found)
    if missing:
        raise DataError(f"{what} holds {many(missing, 'missing name')}: name every one, or drop it")
    if odd is not None:
        raise DataError(f"{what} should be names, and one is of type {type(odd).__name__}: give a list of str")
    found = [str(g) for g in found]
    broken = [g for g in found if UNWRITABLE.search(g)]
    if broken:
        raise DataError(
            f"{what} holds {many(len(broken), 'name')} with line breaks or control characters "
            f"({shown(map(ascii, broken))}): rename them"
        )
    return found


def _one_number(value) -> bool:
    import numbers

    import pandas as pd

    return isinstance(value, numbers.Number) or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def many(n: int, what: str) -> str:
    """``many(1, "gene")`` is "1 gene", ``many(2000, "gene")`` "2,000 genes"."""
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def shown(names) -> str:
    """The first few names, with an ellipsis if there are more."""
    names = [n if len(n) <= 40 else n[:39] + "…" for n in map(str, names)]
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def gene_hash(genes) -> str:
    """SHA-256 of a list of genes, one name a line: the same names in another order give another hash.

    Parameters
    ----------
    genes : sequence of str, or AnnData
        In the order of the columns.

    Raises
    ------
    DataError
        If a name is missing or holds a line break.
    """
    return hashlib.sha256("".join(f"{g}\n" for g in names_of(genes)).encode()).hexdigest()


@dataclass(frozen=True)
class Comparison:
    """How two ordered lists of genes compare; true where they are the same in the same order.

    Attributes
    ----------
    shared : int
        Genes in both.
    only_first, only_second : tuple of str
    same_order : bool
        True when the shared genes come in the same order.
    first, second : str
        Hashes of the lists.
    """

    shared: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    same_order: bool
    first: str
    second: str

    def __bool__(self):
        return self.first == self.second

    def __str__(self):
        if self:
            return f"the same {many(self.shared, 'gene')} in the same order"
        said = [f"{many(self.shared, 'gene')} shared"]
        if self.shared:
            said[0] += ", in the same order" if self.same_order else ", in another order"
        for names, whose in ((self.only_first, "first"), (self.only_second, "second")):
            if names:
                said.append(f"{len(names):,} only in the {whose} ({shown(names)})")
        return "; ".join(said)


def compare_genes(first, second) -> Comparison:
    """Compare two lists of genes, or the genes of two AnnData.

    Raises
    ------
    DataError
        If a list names a gene twice or is no list of names.
    """
    a, b = names_of(first, "the first list"), names_of(second, "the second list")
    for names, whose in ((a, "first"), (b, "second")):
        once(names, f"the {whose} list")
    in_a, in_b = set(a), set(b)
    both_a, both_b = [g for g in a if g in in_b], [g for g in b if g in in_a]
    return Comparison(
        len(both_a),
        tuple(g for g in a if g not in in_b),
        tuple(g for g in b if g not in in_a),
        both_a == both_b,
        gene_hash(a),
        gene_hash(b),
    )


def once(names, what: str) -> None:
    """Refuse a list that holds a name twice."""
    if len(set(names)) < len(names):
        seen, twice = set(), {}
        for name in names:
            if name in seen:
                twice[name] = None
            seen.add(name)
        raise DataError(f"{what} names {many(len(twice), 'gene')} more than once ({shown(twice)}): drop the copies")


@cache
def _read_table(path: Path):
    import pandas as pd

    try:
        return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except FileNotFoundError as e:
        raise DataError(f"the gene table {path.name} is missing: restore it with 'git checkout data'") from e
    except Exception as e:  # whatever a damaged gzip makes the reader say
        raise DataError(f"the gene table {path.name} cannot be read ({e}): 'git checkout data'") from e


def gene_table(name: str):
    """The table ``"human"`` or ``"mouse"`` (ensembl, symbol) or ``"orthologs"`` (human, mouse), as DataFrame."""
    if name not in ("human", "mouse", "orthologs"):
        raise DataError(f"there is no gene table {name!r}: choose human, mouse or orthologs")
    return _read_table(_table_path(name)).copy()


@cache
def _lookup(path: Path, key: str, value: str) -> dict[str, str]:
    """From one column of a table to another, where that has a single answer; made once, never changed."""
    table = _read_table(path)
    table = table[~table[key].duplicated(keep=False)]
    return dict(zip(table[key], table[value]))


def _table_path(name: str) -> Path:
    return home() / "genes" / f"{name}.tsv.gz"


@cache
def _symbols(path: Path) -> frozenset[str]:
    return frozenset(_read_table(path)["symbol"])


def symbols(organism: str) -> frozenset[str]:
    """Every symbol of ``"human"`` or ``"mouse"``."""
    _organism(organism)
    return _symbols(_table_path(organism))


@cache
def _shouted(human: Path, mouse: Path) -> frozenset[str]:
    return frozenset(s.upper() for s in _symbols(mouse)) - _symbols(human)


def _organism(name):
    if name not in ("human", "mouse"):
        raise DataError(f"organism {name!r} has no gene table here: choose 'human' or 'mouse'")


@dataclass(frozen=True)
class GeneKind:
    """Which kind of names a list of genes holds.

    Attributes
    ----------
    kind : str
        ``"symbols"``, ``"ensembl"``, ``"transcripts"``, ``"entrez"``, ``"probes"``, ``"regions"`` or ``"unknown"``.
    organism : str or None
        ``"human"``, ``"mouse"``, ``"mixed"``, ``"other"`` (Ensembl ids of a further species), or None where the
        names do not tell.
    confidence : float
        Share of the names that are of this kind; 0 for ``"unknown"``.
    shares : dict of str to float
        Share of the names that fit each kind: what the verdict rests on.
    """

    kind: str
    organism: str | None
    confidence: float
    shares: dict[str, float] = field(default_factory=dict, compare=False)

    def __str__(self):
        if self.kind == "unknown":
            return "names of an unknown kind"
        words = {"ensembl": "Ensembl ids", "entrez": "Entrez ids", "transcripts": "transcript ids"}
        return " ".join(
            [*filter(None, [self.organism]), words.get(self.kind, self.kind), f"({self.confidence:.0%} of the names)"]
        )


def gene_kind(genes) -> GeneKind:
    """Tell from the names what they are: symbols, Ensembl, Entrez, probes ..., and of which species.

    Ids are told by their form, and one form must hold for half of the names. Symbols are looked up; three in ten must
    be known, because real sets hold many clones and retired names, and two at least unless there is one name only.
    Names that only count (``"0"``, ``"1"``, ``"2"``) are of an unknown kind, not Entrez ids.

    Parameters
    ----------
    genes : sequence of str, or AnnData
        In any order.

    Returns
    -------
    GeneKind
    """
    names = names_of(genes)
    if not names:
        return GeneKind("unknown", None, 0.0)
    share = {kind: sum(map(bool, map(re.compile(p).match, names))) / len(names) for kind, p in PATTERNS.items()}
    if share["entrez"] and _counts_up(names):
        share["entrez"] = 0.0
    # Numbers of the Affymetrix Gene and Exon arrays' transcript clusters.
    if share["entrez"] and sum(len(n) in (7, 8) and n[0] in "1278" for n in names) > 0.9 * len(names) > 9:
        share["probes"], share["entrez"] = share["entrez"], 0.0
    human, mouse = symbols("human"), symbols("mouse")
    for organism, known in (("human", human), ("mouse", mouse)):
        share[organism] = sum(n in known for n in names) / len(names)
    form = max(PATTERNS, key=share.get)
    if share[form] >= 0.5:
        return GeneKind(form, _species_of_ids(names, form), share[form], share)
    best = max(share["human"], share["mouse"])
    both = sum(n in human or n in mouse for n in names)
    if both < 0.3 * len(names) or both < min(2, len(names)):
        return GeneKind("unknown", None, 0.0, share)
    if 3 * min(share["human"], share["mouse"]) > best:
        # A list of both species, or so few names that they could be either.
        both /= len(names)
        return GeneKind("symbols", "mixed" if both > 1.2 * best else None, both, share)
    return GeneKind("symbols", "human" if share["human"] == best else "mouse", best, share)


def _counts_up(names) -> bool:
    numbers = [int(n) for n in names if n.isascii() and n.isdigit() and len(n) < 10]
    return len(numbers) == len(names) and numbers == list(range(numbers[0], numbers[0] + len(names)))


def _species_of_ids(names, form) -> str | None:
    if form not in ("ensembl", "transcripts"):
        return None
    codes = [m[1] for m in map(re.compile("ENS([A-Z]*)[GT]R?\\d").match, names) if m]
    if not codes:
        return None
    found = {code: codes.count(code) / len(codes) for code in set(codes)}
    code, share = max(found.items(), key=lambda item: item[1])
    return "mixed" if share < 0.9 else {"": "human", "MUS": "mouse"}.get(code, "other")


def shouted_mouse(genes) -> float:
    """Share of names that are mouse symbols in upper case and no human symbol: such a list only looks human."""
    names = names_of(genes)
    known = _shouted(_table_path("human"), _table_path("mouse"))
    return sum(n in known for n in names) / max(len(names), 1)


def cut_version(name: str) -> str:
    """An Ensembl id without its version; anything else as it is.

    ``ENSG00000141510.17`` becomes ``ENSG00000141510``. The copy of a gene on the Y chromosome's pseudoautosomal region
    keeps a name of its own: ``ENSG00000182378.15_PAR_Y`` and the older ``ENSGR0000182378.10`` both become
    ``ENSG00000182378_PAR_Y``.
    """
    found = ENSEMBL.match(name)
    if not found:
        return name
    species, digits, older, on_y = found.groups()
    return f"ENS{species}G{digits or '0' + older}" + ("_PAR_Y" if older or on_y else "")


def damaged_names(genes) -> dict[str, tuple[str, ...]]:
    """Names a spreadsheet has damaged, and what each may have been.

    ``1-Mar`` was MARCHF1 or MTARC1, ``2-Sep`` was SEPTIN2, and ``2.31E+19`` was a clone such as 2310009E13Rik that
    cannot be known any more (an empty tuple).

    Parameters
    ----------
    genes : sequence of str, or AnnData
        In any order.
    """
    found = {}
    for name in names_of(genes):
        if re.fullmatch(r"\d+(?:[.,]\d+)?E\+\d+", name, re.IGNORECASE):
            found[name] = ()
            continue
        date = re.fullmatch(r"(\d{1,2})[-. ]?([^\W\d_]{3,5})\.?|([^\W\d_]{3,5})[-. /](\d{1,2})", name)
        if date:
            number, month = int(date[1] or date[4]), (date[2] or date[3]).lower()
            options = [FAMILIES[f][0] + str(number) for f in MONTHS.get(month, ()) if number in FAMILIES[f][1]]
        else:
            iso = re.fullmatch(r"(?:19|20)\d\d[-/.](0?3|0?9|12)[-/.](\d{1,2})(?: 00:00:00)?", name)
            families = {3: ("MARCH", "MARC"), 9: ("SEPT",), 12: ("DEC",)}[int(iso[1])] if iso else ()
            options = [FAMILIES[f][0] + str(int(iso[2])) for f in families if int(iso[2]) in FAMILIES[f][1]]
        if options:
            found[name] = tuple(options)
    return found


def renamed_names(genes) -> dict[str, str]:
    """Retired names of the families that spreadsheets damage, with today's: MARCH1 is MARCHF1, Sept2 is Septin2."""
    found = {}
    for name in names_of(genes):
        old = re.fullmatch(r"([A-Za-z]{3,5})(\d{1,2})", name)
        family = FAMILIES.get(old[1].upper()) if old else None
        if family and int(old[2]) in family[1] and old[1] in (old[1].upper(), old[1].capitalize()):
            new = family[0] + old[2]
            found[name] = new if old[1].isupper() else new.capitalize()
    return found


@dataclass(frozen=True)
class GeneReport:
    """What a change of gene names did; its ``str`` is one line.

    Attributes
    ----------
    step : str
        The function that did it.
    before, after : int
        Genes that came in and that go out.
    mapped : int
        Genes that came in and have a new name.
    merged : int
        Genes that were mapped to a name another had got already: ``mapped - after``.
    duplicates : str
        What became of those: ``"sum"``: added to it, ``"first"``: left out.
    lost : dict of reason to number
    first : dict of reason to the first names lost for it
    notes : tuple of str
        Damaged and retired names, layers that could not follow, ...
    """

    step: str
    before: int
    after: int
    mapped: int
    merged: int
    duplicates: str = "sum"
    lost: dict[str, int] = field(default_factory=dict)
    first: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self):
        said = [f"{self.step}: {self.mapped:,} of {many(self.before, 'gene')} mapped"]
        if self.merged:
            how = "added to" if self.duplicates == "sum" else "left out for"
            said.append(f"{self.merged:,} {how} a gene of the same new name")
        said += [f"{n:,} lost, {why} ({shown(self.first[why])})" for why, n in self.lost.items()]
        return "; ".join([*said, *self.notes])

    def as_dict(self) -> dict:
        """The report as words and numbers, as ``uns["gene_report"]`` holds it (an ``.h5ad`` file can, too)."""
        plain = asdict(self)
        plain["first"] = {why: list(names) for why, names in self.first.items()}
        return plain | {"notes": list(self.notes)}


def to_symbols(adata: ad.AnnData, *, organism=None, column=None, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """Name the genes by symbols.

    Parameters
    ----------
    adata : AnnData
        cells × genes, named by Ensembl ids; versions are cut. Symbols stay as they are.
    organism : {"human", "mouse"}, optional
        Refuse genes of another species.
    column : str, optional
        Take the new names from this column of ``var``: the way out of Entrez ids and probes, for which there is no
        table here.
    duplicates : {"sum", "refuse", "first"}, default "sum"
        What becomes of genes with the same symbol. Sums make no sense of logged and centred values, and are refused.

    Returns
    -------
    renamed : AnnData
        A copy, its genes in the order of their first appearance. ``var["before"]`` holds the names before,
        ``uns["gene_hash"]`` the hash of the new list, ``uns["gene_report"]`` the report.
    report : GeneReport

    Raises
    ------
    DataError
        If no gene can be mapped, the species is another, or duplicates cannot be treated as asked.
    """
    names = _start(adata, organism)
    if column is not None:
        return _rename(adata, _from_column(adata, column), "to_symbols", duplicates)
    kind = gene_kind(names)
    _right_species(kind, organism)
    if kind.kind == "symbols":
        return _rename(adata, [(n, None) for n in names], "to_symbols", duplicates)
    return _rename(adata, _to_symbols(names), "to_symbols", duplicates, kind)


def to_ensembl(adata: ad.AnnData, *, organism=None, column=None, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """Name the genes by Ensembl ids without versions.

    A symbol that stands for several ids has no single answer and is lost; the report names it. Parameters, results
    and errors are those of :func:`to_symbols`; `organism` is needed where the symbols do not tell it.
    """
    names = _start(adata, organism)
    if column is not None:
        new = [(n and cut_version(n), why) for n, why in _from_column(adata, column)]
        return _rename(adata, new, "to_ensembl", duplicates)
    kind = gene_kind(names)
    _right_species(kind, organism)
    if kind.kind == "ensembl":
        new = [(cut_version(n), None) if ENSEMBL.match(n) else (None, "no Ensembl id") for n in names]
        return _rename(adata, new, "to_ensembl", duplicates)
    species = organism or kind.organism
    if species not in ("human", "mouse"):
        raise DataError(f"the data have {kind}, which do not tell the species: say organism='human' or 'mouse'")
    known, all_symbols = _lookup(_table_path(species), "symbol", "ensembl"), symbols(species)
    today = renamed_names(names)

    def look(name):
        name = name if name in all_symbols else today.get(name, name)
        if name in known:
            return known[name], None
        return None, "several ids of that symbol" if name in all_symbols else "not in the table"

    return _rename(adata, [look(n) for n in names], "to_ensembl", duplicates, kind)


def to_human(adata: ad.AnnData, *, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """Mouse genes to the symbols of their human partners; only one-to-one orthologues have one.

    Parameters
    ----------
    adata : AnnData
        cells × genes, named by mouse symbols or mouse Ensembl ids.
    duplicates : {"sum", "refuse", "first"}, default "sum"
        As in :func:`to_symbols`.

    Returns
    -------
    renamed : AnnData
    report : GeneReport

    Raises
    ------
    DataError
        If the genes are of another species, none has a partner, or duplicates cannot be treated as asked.
    """
    return _across(adata, "mouse", "human", duplicates)


def to_mouse(adata: ad.AnnData, *, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """Human genes to the symbols of their mouse partners; see :func:`to_human`."""
    return _across(adata, "human", "mouse", duplicates)


def merge_duplicates(adata: ad.AnnData, duplicates="sum") -> tuple[ad.AnnData, GeneReport]:
    """One column a name: the cure for a matrix that names genes twice. See :func:`to_symbols` for `duplicates`."""
    return _rename(adata, [(n, None) for n in _start(adata, None)], "merge_duplicates", duplicates)


def _start(adata, organism) -> list[str]:
    from shared.data.structure import structure

    if organism is not None:
        _organism(organism)
    structure(adata, duplicated_genes=True)
    return names_of(adata)


def _right_species(kind, organism):
    other = {"human": "mouse", "mouse": "human"}.get(organism)
    if other and kind.organism in (other, "other"):
        raise DataError(
            f"the data have {kind}, not {organism}: "
            + (f"shared.data.to_{organism} translates" if kind.organism == other else "there is no table for them")
        )


def _from_column(adata, column):
    import pandas as pd

    if list(adata.var.columns).count(column) != 1:
        raise DataError(f"var has no column {column!r}; it has {shown(adata.var.columns) or 'none'}")
    new = []
    for value in adata.var[column].astype(object):
        missing = (
            value is None or (pd.api.types.is_scalar(value) and pd.isna(value)) or str(value).strip() in ("", "---")
        )
        new.append((None, f"no {column}") if missing else (str(value).strip(), None))
    names_of([n for n, _ in new if n], f"var[{column!r}]")
    return new


def _to_symbols(names):
    human, mouse = (_lookup(_table_path(species), "ensembl", "symbol") for species in ("human", "mouse"))

    def look(name):
        # The Y chromosome's copy of a gene is measured apart, so it must not be added to the one on X.
        plain = cut_version(name)
        base = plain.removesuffix("_PAR_Y")
        symbol = human.get(base) or mouse.get(base)
        return (symbol + plain[len(base) :], None) if symbol else (None, "not in the table")

    return [look(n) for n in names]


def _across(adata, source, target, duplicates):
    names = _start(adata, None)
    kind = gene_kind(names)
    if kind.organism == target:
        raise DataError(f"the data have {kind} already: to_{target} takes {source} genes")
    old = _to_symbols(names) if kind.kind == "ensembl" else [(n, None) for n in names]
    if kind.kind == "ensembl":  # in a list of both species each id says which it is of
        theirs = "ENSG" if source == "human" else "ENSMUSG"
        old = [o if n.startswith(theirs) else (None, f"not {source}") for o, n in zip(old, names)]
    partner = _lookup(_table_path("orthologs"), source, target)
    today = renamed_names([n for n, _ in old if n])

    def look(name, why):
        if name is None:
            return None, why
        name = name if name in partner else today.get(name, name)
        return (partner[name], None) if name in partner else (None, "no one-to-one orthologue")

    return _rename(adata, [look(*o) for o in old], f"to_{target}", duplicates, kind)


def _rename(adata, new, step, duplicates, kind=None):
    """`adata` with its genes called `new` (name or None, and why None), those of one name merged."""
    with warnings.catch_warnings():
        # Genes may come in twice of a name: that is what is cured here.
        warnings.filterwarnings("ignore", message=".*names are not unique", category=UserWarning)
        return _renamed(adata, new, step, duplicates, kind)


def _renamed(adata, new, step, duplicates, kind):
    import numpy as np
    import pandas as pd

    if duplicates not in DUPLICATES:
        raise DataError(f"duplicates={duplicates!r} is not known: choose {', '.join(map(repr, DUPLICATES))}")
    old = names_of(adata)
    groups: dict[str, list[int]] = {}
    for i, (name, _) in enumerate(new):
        if name is not None:
            groups.setdefault(name, []).append(i)
    if not groups:
        of = f"; they are {kind}" if kind else ""
        raise DataError(f"{step} knows none of the {many(len(old), 'gene')} ({shown(old)}){of}: check the names")
    mapped, twice = sum(map(len, groups.values())), [name for name, members in groups.items() if len(members) > 1]
    merged, first = mapped - len(groups), [members[0] for members in groups.values()]
    notes = _noticed(old)
    if merged and duplicates == "refuse":
        raise DataError(
            f"{many(len(twice), 'name')} would stand for several genes ({shown(twice)}): "
            "choose duplicates='sum' for counts, or 'first'"
        )
    if merged and duplicates == "sum":
        out, left = _summed(adata, list(groups.values()))
        notes += left
    else:
        out = adata[:, np.array(first)]
        out = out.to_memory() if adata.isbacked else out.copy()
        if merged:
            groups = {name: members[:1] for name, members in groups.items()}
    if adata.raw is not None:
        out.raw = None
        notes.append("raw dropped, its genes had the old names")
    out.var_names = pd.Index(list(groups), dtype=object)
    out.var["before"] = [";".join(old[i] for i in members) for members in groups.values()]
    gone: dict[str, list[str]] = {}
    for i, (name, why) in enumerate(new):
        if name is None:
            gone.setdefault(why, []).append(old[i])
    report = GeneReport(
        step=step,
        before=len(old),
        after=len(groups),
        mapped=mapped,
        merged=merged,
        duplicates=duplicates,
        lost={why: len(names) for why, names in gone.items()},
        first={why: tuple(names[:KEPT]) for why, names in gone.items()},
        notes=tuple(notes),
    )
    stamp(out, notes=[str(report)])
    out.uns["gene_report"] = report.as_dict()
    return out, report


def stamp(adata: ad.AnnData, notes=()) -> None:
    """Write the hash of the ordered genes to ``uns["gene_hash"]``, and add `notes` to ``uns["notes"]``."""
    adata.uns["gene_hash"] = gene_hash(adata)
    before = adata.uns.get("notes", ())
    before = [before] if isinstance(before, str) else list(map(str, before))
    adata.uns["notes"] = [*before, *notes]


def _noticed(names) -> list[str]:
    said, damaged, old = [], damaged_names(names), renamed_names(names)
    if damaged:
        said.append(f"{many(len(damaged), 'name')} damaged by a spreadsheet ({shown(damaged)})")
    if old:
        first, new = next(iter(old.items()))
        said.append(f"{many(len(old), 'retired name')} such as {first}, now {new}")
    return said


def _summed(adata, groups):
    """The genes of each group summed; what cannot be summed is left behind, and told."""
    import anndata as ad
    import numpy as np
    from scipy import sparse

    from shared.data.values import summable

    rows, columns = np.concatenate(groups), np.repeat(np.arange(len(groups)), list(map(len, groups)))
    place = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(adata.n_vars, len(groups)))

    def total(X):
        # Small integers would overflow in the sum; 64-bit ones keep 64 bits.
        X = (sparse.csr_matrix(X) if sparse.issparse(X) else np.asarray(X)).astype(np.result_type(X.dtype, np.float32))
        if sparse.issparse(X):
            return X @ place.astype(X.dtype)
        return np.ascontiguousarray((place.T.astype(X.dtype) @ X.T).T)

    if adata.isbacked:
        adata = adata.to_memory()
    units = adata.uns.get("units")
    if adata.X is not None and not summable(adata.X, units):
        raise DataError(
            f"several genes get one name, and logged or centred values cannot be summed"
            f"{f' (units: {units})' if isinstance(units, str) else ''}: start from counts, or choose duplicates='first'"
        )
    layers = {name: total(layer) for name, layer in adata.layers.items() if summable(layer)}
    notes = [f"layer {name!r} dropped, its values cannot be summed" for name in adata.layers if name not in layers]
    notes += [f"{what} dropped, genes were merged" for what in ("varm", "varp") if len(getattr(adata, what))]
    out = ad.AnnData(
        None if adata.X is None else total(adata.X),
        obs=adata.obs.copy(),
        var=adata.var.iloc[[members[0] for members in groups]].copy(),
        uns=dict(adata.uns),
        obsm=dict(adata.obsm),
        obsp=dict(adata.obsp),
        layers=layers,
    )
    return out, notes
