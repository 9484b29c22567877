"""What kind of names a list of genes holds, and of which species; versions and damage that names carry."""

import re
from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta

from shared.data.genes.lists import names_of, symbols

TRANSLATE = "shared.data.genes.translate"  # where the cures of messages find to_human and its like
# Species, number, the number of an older copy on Y (ENSGR), and today's mark of such a copy.
ENSEMBL = re.compile(r"ENS([A-Z]*)G(?:(\d{11})|R(\d{10}))(?:\.\d+)?(_PAR_Y)?$")
PATTERNS = {
    "ensembl": ENSEMBL.pattern,
    "transcripts": r"(?:ENS[A-Z]*T\d{11}|[NX][MR]_\d+)(?:\.\d+)?(?:_PAR_Y)?$",
    "entrez": r"[1-9]\d{0,8}$",
    "probes": r"(?:\w+_(?:[a-z]_)?at|AFFX-\S+|ILMN_\d+|A_\d+_P\d+)$",
    "regions": r"(?:chr)?(?:\d{1,2}|[XYM]|MT|GL\S+|KI\S+)[-:_]\d+[-_]\d+$",
}
# Families whose old names spreadsheets take for dates, and which were therefore renamed in 2020: old, new, month, days.
FAMILIES = (
    ("MARCH", "MARCHF", 3, range(1, 12)),
    ("MARC", "MTARC", 3, (1, 2)),
    ("SEPT", "SEPTIN", 9, (*range(1, 13), 14)),
    ("DEC", "DELEC", 12, (1,)),
)
RENAMED = {
    case(old) + str(n): case(new) + str(n)
    for old, new, _, numbers in FAMILIES
    for n in numbers
    for case in (str.upper, str.capitalize)
}
# What spreadsheets in English, German, French, Spanish, Italian, Portuguese and Dutch write for their months.
WRITTEN = {
    3: "mar march mär mrz märz mars marzo março mrt maart",
    9: "sep sept september septembre septiembre set sett settembre setembro",
    12: "dec december dez dezember déc décembre dic diciembre dicembre dezembro",
}
MONTHS = {name: month for month, names in WRITTEN.items() for name in names.split()}
YEARS = range(1990, 2041)  # a date without a year is of the year in which the file was opened
EPOCHS = (date(1899, 12, 30), date(1904, 1, 1))  # day 0 of spreadsheets' calendars
# Day and month in words in either order, perhaps with a year; then in numbers, year, month or day first.
WORDS = re.compile(
    r"(\d{1,2})[-. /]{0,2}([^\W\d_]{3,10})\.?(?:[-. /](?:\d\d){1,2})?|([^\W\d_]{3,10})\.?[-. /](\d{1,2})"
)
ISO = re.compile(r"(?:19|20)\d\d[-/.](\d{1,2})[-/.](\d{1,2})(?:[ T]00:00:00)?")
NUMBERS = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(?:\d\d){1,2}(?: 0?0:00(?::00)?)?")
SERIAL = re.compile(r"(\d{5})(?:\.0+)?")


@dataclass(frozen=True)
class GeneKind:
    """Which kind of names a list of genes holds.

    `kind` is ``"symbols"``, ``"ensembl"``, ``"transcripts"``, ``"entrez"``, ``"probes"``, ``"regions"`` or
    ``"unknown"``; `organism` ``"human"``, ``"mouse"``, ``"mixed"``, ``"other"``, or None where the names do not tell;
    `confidence` the share of the names that are of this kind, 0 for ``"unknown"``.
    """

    kind: str
    organism: str | None
    confidence: float

    def __str__(self):
        if self.kind == "unknown":
            return "names of an unknown kind"
        words = {"ensembl": "Ensembl ids", "entrez": "Entrez ids", "transcripts": "transcript ids"}
        kind = f"{self.organism or ''} {words.get(self.kind, self.kind)}".strip()
        return f"{kind} ({self.confidence:.0%} of the names)"


def gene_kind(genes) -> GeneKind:
    """Tell from the names what they are: symbols, Ensembl, Entrez, probes ..., and of which species.

    Ids are told by their form, which must hold for half of the names; symbols are looked up, and three in ten must be
    known. Names that only count (``"0"``, ``"1"``, ``"2"``) are of an unknown kind, not Entrez ids.
    """
    names = names_of(genes)
    if not names:
        return GeneKind("unknown", None, 0.0)
    n, human, mouse = len(names), symbols("human"), symbols("mouse")
    share = {kind: sum(map(bool, map(re.compile(pattern).match, names))) / n for kind, pattern in PATTERNS.items()}
    first = int(names[0]) if re.fullmatch(r"[0-9]{1,9}", names[0]) else None
    if first is not None and names == [str(first + i) for i in range(n)]:
        share["entrez"] = 0.0
    # Numbers of the Affymetrix Gene and Exon arrays' transcript clusters.
    if share["entrez"] and sum(len(name) in (7, 8) and name[0] in "1278" for name in names) > 0.9 * n > 9:
        share["probes"], share["entrez"] = share["entrez"], 0.0
    share |= {what: sum(name in known for name in names) / n for what, known in (("human", human), ("mouse", mouse))}
    form = max(PATTERNS, key=share.get)
    if share[form] >= 0.5:
        organism = _species_of_ids(names) if form in ("ensembl", "transcripts") else None
        return GeneKind(form, organism, share[form])
    both = sum(name in human or name in mouse for name in names)
    if both < 0.3 * n or both < min(2, n):
        return GeneKind("unknown", None, 0.0)
    best = max(share["human"], share["mouse"])
    if 3 * min(share["human"], share["mouse"]) > best:
        # A list of both species, or so few names that they could be either.
        return GeneKind("symbols", "mixed" if both / n > 1.2 * best else None, both / n)
    return GeneKind("symbols", "human" if share["human"] == best else "mouse", best)


def wrong_species(kind: GeneKind, organism: str | None) -> str | None:
    """What to do about genes of another species than `organism`; None where they are of no other."""
    other = {"human": "mouse", "mouse": "human"}.get(organism)
    if not other or kind.organism not in (other, "other"):
        return None
    return f"{TRANSLATE}.to_{organism} translates" if kind.organism == other else "there is no table for them"


def _species_of_ids(names) -> str | None:
    codes = [found[1] for found in map(re.compile("ENS([A-Z]*)[GT]R?\\d").match, names) if found]
    if not codes:
        return None
    ((code, n),) = Counter(codes).most_common(1)
    return "mixed" if n < 0.9 * len(codes) else {"": "human", "MUS": "mouse"}.get(code, "other")


def shouted_mouse(genes) -> float:
    """Share of names that are mouse symbols in upper case and no human symbol: such a list only looks human."""
    names = names_of(genes)
    known = {s.upper() for s in symbols("mouse")} - symbols("human")
    return sum(n in known for n in names) / max(len(names), 1)


def cut_version(name: str) -> str:
    """An Ensembl id without its version (``ENSG00000141510.17`` becomes ``ENSG00000141510``); anything else as it is.

    The copy of a gene on the Y chromosome's pseudoautosomal region keeps a name of its own:
    ``ENSG00000182378.15_PAR_Y`` and the older ``ENSGR0000182378.10`` both become ``ENSG00000182378_PAR_Y``.
    """
    found = ENSEMBL.match(name)
    if not found:
        return name
    species, digits, older, on_y = found.groups()
    return f"ENS{species}G{digits or '0' + older}" + ("_PAR_Y" if older or on_y else "")


def damaged_names(genes) -> dict[str, tuple[str, ...]]:
    """Names a spreadsheet has damaged, and what each may have been.

    ``1-Mar`` was MARCHF1 or MTARC1, ``2-Sep`` was SEPTIN2, and ``2.31E+19`` was a clone such as 2310009E13Rik that
    cannot be known any more (an empty tuple). Months are known in seven languages, and ``43891``, the number that a
    spreadsheet keeps for 1 March 2020, where most names are no numbers.
    """
    found, names = {}, names_of(genes)
    few = 2 * sum(name.isdigit() for name in names) <= len(names)  # Entrez ids are numbers, too
    for name in names:
        dates = _dates(name, few)
        options = [new + str(n) for date in dates for _, new, month, ns in FAMILIES for n in ns if date == (month, n)]
        if options or re.fullmatch(r"\d+(?:[.,]\d+)?E\+\d+", name, re.IGNORECASE):
            found[name] = tuple(dict.fromkeys(options))
    return found


def _dates(name, serial) -> list[tuple[int, int]]:
    """Month and day that a name may stand for; in numbers either may come first."""
    if found := WORDS.fullmatch(name):
        return [(MONTHS.get((found[2] or found[3]).lower(), 0), int(found[1] or found[4]))]
    if found := ISO.fullmatch(name):
        return [(int(found[1]), int(found[2]))]
    if found := NUMBERS.fullmatch(name):
        return [(int(found[3]), int(found[1])), (int(found[1]), int(found[3]))]
    if serial and (found := SERIAL.fullmatch(name)):
        days = [start + timedelta(int(found[1])) for start in EPOCHS]
        return [(day.month, day.day) for day in days if day.year in YEARS]
    return []


def renamed_names(genes) -> dict[str, str]:
    """Retired names of the families that spreadsheets damage, with today's: MARCH1 is MARCHF1, Sept2 is Septin2."""
    return {name: RENAMED[name] for name in names_of(genes) if name in RENAMED}
