"""Files of the Gene Expression Omnibus: per-sample UMI tables, series matrices, and tables with genes in rows."""

import re
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io import names_of_files
from shared.data.io.tables import AGAIN, blocks, fields, joined, opened
from shared.data.sources.common import assembled, facts, labels, numbers, plain, together
from shared.data.validate.names import distinct
from shared.data.validate.structure import column_of


def umi(paths):
    """Per-sample tables of UMI counts as Baron and others deposited them (GSE84133), of one species.

    Layout: commas, gzipped, one file a donor. A row is a cell: its name (no heading), ``barcode``,
    ``assigned_cluster``, then one whole number for each gene; all files name the same genes in one order. The donor
    (human1, mouse2) is the part of a file's name after ``GSM…_`` and before ``_umifm``.

    ``X``: float32 CSR. ``obs``: cell_type (the authors' cluster, made of these counts), donor, batch (the donor),
    species, barcode where known.
    """
    parts = []
    for path in paths:
        donor = re.sub(r"^GSM\d+_|(_umifm)?_counts.*$|\.(csv|txt)(\.gz)?$", "", path.name)
        species = re.match(r"human|mouse", donor)
        ids, genes, X = numbers(path, ids=3, units="counts")
        said = labels(ids.set_index(ids.columns[0]))
        obs = pd.DataFrame({"cell_type": column_of(said, "assigned_cluster", path.name)}).assign(
            donor=donor, batch=donor
        )
        obs = obs.assign(species=species and species[0], barcode=column_of(said, "barcode", path.name))
        parts.append((X, genes, obs, path.name))
    X, genes, obs = together(parts)
    return assembled(X, genes, obs.dropna(axis=1, how="all"), "counts", names_of_files(paths))


TABLE = (b"!series_matrix_table_begin", b"!series_matrix_table_end")


def samples(stream, path) -> pd.DataFrame:
    """What the head of a series matrix says of its samples; the stream then stands before the table.

    One row a sample, indexed by accession (GSM…): title, source_name_ch1 and the like, and one column for each key of
    the characteristics (``"cell subtype: beta"`` gives ``cell_subtype``).
    """
    found, keyed = {}, {}
    for line in stream:
        if line.startswith(TABLE[0]):
            break
        if not line.startswith(b"!Sample_"):
            continue
        name, *values = fields(line.removeprefix(b"!Sample_"), "\t")
        if not name.startswith("characteristics"):
            # Some fields come in several lines (contact, protocols); the first names a sample best.
            found.setdefault(name, values)
            continue
        for i, value in enumerate(values):  # each names its key, and a line may hold several
            key, colon, rest = value.partition(":")
            key, value = (plain(key), rest.strip()) if colon else ("characteristic", value)
            if key and (colon or value):
                keyed.setdefault(key, [None] * len(values))[i] = value
    else:
        raise DataError(f"{path.name} is no series matrix, or was cut before its table: {AGAIN}")
    n = len(found.get("geo_accession", ()))
    wrong = [k for k, v in (found | keyed).items() if len(v) != n]
    if wrong or not n:
        raise DataError(f"{path.name} has not one value for each of {many(n, 'sample')} in {shown(wrong)}: {AGAIN}")
    return pd.DataFrame(found | keyed | found, dtype=object).set_index("geo_accession", drop=False)


RESISTANT = r"(?i)\b(?:resistant|resistance|non[- ]?respon\w+|no response)\b"
SENSITIVE = r"(?i)\b(?:sensitive|sensitivity|responder|responsive)\b"


def series(paths):
    """A series matrix: what GEO makes of a study on arrays (GSE6434, ``GSE6434_series_matrix.txt.gz``).

    Layout: lines of ``!Series_…`` and ``!Sample_…`` with one quoted, tab-separated value for each sample, then, between
    ``!series_matrix_table_begin`` and ``…_end``, probes × samples under a header ``"ID_REF"``. Values are what the
    submitters gave, so one study is logged and the next is not. Sequencing studies keep theirs in other files.

    ``X``: float32 ndarray, samples × probes. ``obs``: title, source_name_ch1, the characteristics; and response
    (responder, non_responder) where the record of every sample says the one or the other (sensitive, resistant).
    """
    (path,) = paths
    with opened(path) as stream:
        said = samples(stream, path)
        columns, rows = fields(stream.readline(), "\t")[1:], _rows(stream, path)
        first = next(rows, None)
        if first is None:
            raise DataError(f"{path.name} has an empty table: the study keeps its values in another file of the record")
        probes, X = joined(blocks(chain([first], rows), path, "\t", 1, columns, "log"), np.float32)
    if columns != list(said["geo_accession"]):
        raise DataError(f"{path.name} lists other samples above its table than in it: it is damaged, {AGAIN}")
    different = said.nunique(dropna=False)
    alike = said.columns[(different == 1) & (len(said) > 1)].difference(["title", "source_name_ch1"])
    cells = labels(said.drop(columns=alike.union(["geo_accession"])).rename(columns=plain))
    found = _response(said)
    if "response" not in cells and found is not None:
        cells["response"] = found
    return assembled(np.ascontiguousarray(X.T), probes[0], cells, "none", path.name)


def _rows(stream, path):
    for line in stream:
        if line.startswith(TABLE[1]):
            return
        yield line
    raise DataError(f"{path.name} has no end of its table: it was cut short, {AGAIN}")


def _response(said):
    """Responders and others, where every sample's record says it, in any of its fields, and none says both."""
    text = said.drop(columns="geo_accession").fillna("").astype(str)
    for name in text:
        no = text[name].str.contains(RESISTANT)
        yes = text[name].str.contains(SENSITIVE) & ~no  # "non-responder" holds the word responder
        if (yes ^ no).all() and yes.any() and no.any():
            return np.where(yes, "responder", "non_responder")
    return None


def matrix(paths, *, ids=1, short=None, full=None, cut="", cells=None, key_to_cell=("", ""), obs=None, drop=None):
    r"""A table with genes in rows, and labels from the series matrices beside it.

    Layout, each gzipped:

    - Muraro, GSE85241 ``…cellsystems_dataset_4donors_updated.csv.gz``: tabs in spite of the name; a header without a
      field above the genes, then ``SYMBOL__chr1`` and one number for each of 3,072 cells (D28-1_1: donor 28, library
      1, well 1). Fractional molecules, corrected for barcodes that met by chance: units none. No cell types in GEO.
    - Wang, GSE83139 ``…tbx-v-f-norm-ntv-cpms.csv.gz``: tabs; seven columns of gene facts (chr, start, end, strand,
      transcript, part, gene), then counts per million of cells ``reads.<id>``; types in two series matrices whose
      titles end in the id.
    - Xin, GSE81608 ``…human_islets_rpkm.txt.gz``: tabs; ``gene.id`` (Entrez numbers), then RPKM of ``Sample_1`` to
      ``Sample_1600``; types in the series matrix, titled "Pancreatic islet cell sample 1".

    `paths` are the table, then series matrices. The first `ids` columns hold no measurement: `short` names a gene (the
    first without it), and `full` names it where the short name, from which the regular expression `cut` is cut, is
    missing or stands twice. `cells` gives columns of ``obs`` regular expressions, whose first group is taken from the
    cell's name; `obs` gives them what the series matrices call them (characteristics in lower case with underscores),
    whose titles become cells' names by the regular expression and replacement `key_to_cell`. `drop` gives columns the
    labels whose cells are left out: those the authors dropped, or took for mixtures.

    ``X``: float32 CSR. ``obs``: as asked; missing where the labels do not name the cell. ``batch`` is the platform,
    donor or library, where one of them is known.
    """
    path, *series_paths = paths
    rows, names, X = numbers(path, ids=ids)
    first, last = (rows.iloc[:, 0] if name is None else column_of(rows, name, path.name) for name in (short, full))
    genes = distinct(first.str.replace(cut, "", regex=True), last, path.name)
    var = rows.rename(columns=plain) if ids > 1 else None
    table, notes = pd.DataFrame(index=names), []
    for new, rule in (cells or {}).items():
        table[new] = names.str.extract(rule, expand=False)
        if table[new].isna().any():
            raise DataError(f"{path.name}: {rule!r} finds no {new} in some cells' names: it is another release")
    if series_paths:
        told = _labelled(names, series_paths, path, key_to_cell, obs or {})
        unnamed = int(told.isna().all(axis=1).sum()) if obs else 0
        notes = [f"{many(unnamed, 'cell')} that the labels do not name"] * bool(unnamed)
        table = pd.concat([table, told], axis=1)
    source = next((c for c in ("platform", "library", "donor") if c in table), None)
    if source:
        table["batch"] = table[source]
    kept = np.ones(len(table), bool)
    for name, values in (drop or {}).items():
        gone = column_of(table, name, path.name).isin(values).to_numpy()
        kept &= ~gone
        notes.append(f"{many(int(gone.sum()), 'cell')} of {name} {shown(values)} left out")
    return assembled(X.T.tocsr()[kept], genes, table[kept], "none", path.name, var=var, notes=notes)


def _labelled(names, paths, matrix_path, key_to_cell, obs) -> pd.DataFrame:
    tables = []
    for path in paths:
        with opened(path) as stream:
            said = samples(stream, path).rename(columns=plain)
        picked = {new: column_of(said, plain(old), path.name) for new, old in obs.items()}
        keys = column_of(said, "title", path.name).str.replace(*key_to_cell, regex=True)
        tables.append(pd.DataFrame(picked, said.index).set_axis(pd.Index(keys, dtype=object)))
    return facts(pd.concat(tables), dict(zip(obs, obs)), names, matrix_path.name, Path(names_of_files(paths)))
