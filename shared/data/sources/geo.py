"""Files of the Gene Expression Omnibus: per-sample UMI tables, series matrices, and tables with genes in rows."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io import names_of_files
from shared.data.io.tables import AGAIN, blocks, fields, opened, sound, words
from shared.data.io.tenx import distinct
from shared.data.sources.common import assembled, column, joined, labels, numbers, plain, stacked

BEFORE = ["barcode", "assigned_cluster"]  # between a cell's name and its counts


def umi(paths: list[Path]):
    """Per-sample tables of UMI counts as Baron and others deposited them (GSE84133).

    Layout: comma-separated, gzipped, one file a donor. A row is a cell: its name (no heading), ``barcode``,
    ``assigned_cluster``, then one whole number for each gene. The files of one species name the same genes in one
    order.

    Parameters
    ----------
    paths : list of Path
        One or more files of one species. The donor is the part of the name after ``GSM…_`` and before ``_umifm``:
        human1, mouse2.

    Returns
    -------
    AnnData
        ``X``: float32 CSR, cells × genes. ``obs``: cell_type (the authors' cluster, made of these counts), donor, batch
        (the donor), species, barcode where known.

    Raises
    ------
    DataError
        If a file is damaged, or the files name other genes.
    """
    from scipy import sparse

    parts, obs, genes = [], [], None
    for path in paths:
        donor = re.sub(r"^GSM\d+_|(_umifm)?_counts.*$|\.(csv|txt)(\.gz)?$", "", path.name)
        species = re.match(r"human|mouse", donor)
        ids, own, X = numbers(path, ids=3, units="counts")
        if list(ids.columns[1:]) != BEFORE:
            raise DataError(
                f"{path.name} begins with columns {shown(ids.columns)} where a cell's name, barcode and "
                f"assigned_cluster are due: it is another table, or a column was lost; {AGAIN}"
            )
        if genes is not None and not own.equals(genes):
            raise DataError(
                f"{path.name} and {paths[0].name} name other genes, or the same in another order: give files of one "
                "species, or fetch both again"
            )
        genes = own
        parts.append(X)
        cells = labels(pd.DataFrame({"cell_type": ids["assigned_cluster"], "barcode": ids["barcode"]}))
        cells = cells.assign(donor=donor, batch=donor, species=species[0] if species else None)
        obs.append(cells.set_axis(pd.Index(ids.iloc[:, 0])))
    obs = pd.concat(obs)[["cell_type", "donor", "batch", "species", "barcode"]].dropna(axis=1, how="all")
    return assembled(sparse.vstack(parts, format="csr"), genes, obs, "counts", names_of_files(paths))


# Series matrices

TABLE = (b"!series_matrix_table_begin", b"!series_matrix_table_end")


def samples(stream, path) -> pd.DataFrame:
    """What the head of a series matrix says of its samples; the stream then stands before the table.

    Returns
    -------
    DataFrame
        One row a sample, indexed by accession (GSM…): title, source_name_ch1 and the like, and one column for each key
        of the characteristics (``"cell subtype: beta"`` gives ``cell_subtype``).
    """
    found, keyed = {}, {}
    for line in stream:
        if line.startswith(TABLE[0]):
            break
        if line.startswith(b"!Sample_"):
            name, *values = fields(line.removeprefix(b"!Sample_"), "\t")
            if name.startswith("characteristics"):
                _characteristics(values, keyed)
            else:
                # Some fields come in several lines (contact, protocols); the first names a sample best.
                found.setdefault(name, values)
    else:
        raise DataError(f"{path.name} is no series matrix, or was cut before its table: {AGAIN}")
    n = len(found.get("geo_accession", ()))
    wrong = [k for k, v in (found | keyed).items() if len(v) != n]
    if wrong or not n:
        raise DataError(f"{path.name} has not one value for each of {many(n, 'sample')} in {shown(wrong)}: {AGAIN}")
    table = pd.DataFrame(found | {k: v for k, v in keyed.items() if k not in found}, dtype=object)
    return table.set_index("geo_accession", drop=False)


def _characteristics(values, keyed):
    """Each value names its key, and the same line may hold other keys for other samples."""
    for i, value in enumerate(values):
        key, colon, rest = value.partition(":")
        key = plain(key) if colon else "characteristic"
        if key and value:
            keyed.setdefault(key, [None] * len(values))[i] = rest.strip() if colon else value
    return keyed


RESPONSE = {
    "non_responder": re.compile(r"\b(?:resistant|resistance|non[- ]?respon\w+|no response)\b", re.IGNORECASE),
    "responder": re.compile(r"\b(?:sensitive|sensitivity|responder|responsive)\b", re.IGNORECASE),
}


def series(paths: list[Path]):
    """A series matrix: what GEO makes of a study on arrays (GSE6434, ``GSE6434_series_matrix.txt.gz``).

    Layout: lines of ``!Series_…`` and ``!Sample_…`` with one quoted, tab-separated value for each sample, then, between
    ``!series_matrix_table_begin`` and ``…_end``, probes × samples under a header ``"ID_REF"``. Values are what the
    submitters gave, so one study is logged and the next is not. Rows are probes, not genes.

    Parameters
    ----------
    paths : list of Path
        One file.

    Returns
    -------
    AnnData
        ``X``: float32 ndarray, samples × probes. ``obs``: title, source_name_ch1, the characteristics; and response
        (responder, non_responder) where the record of every sample says the one or the other (sensitive, resistant).

    Raises
    ------
    DataError
        If the file is damaged, has no table (sequencing studies keep theirs elsewhere), or lacks values.
    """
    (path,) = paths
    with opened(path) as stream:
        said = samples(stream, path)
        columns, rows = fields(stream.readline(), "\t")[1:], _rows(stream, path)
        first = next(rows, None)
        if first is None:
            raise DataError(f"{path.name} has an empty table: the study keeps its values in another file of the record")
        parts = blocks(chain([first], rows), path, "\t", 1, columns)
        probes, X = stacked(((n, sound(b, "log", n, path)) for n, b in parts), dense=True)
    if columns != list(said["geo_accession"]):
        raise DataError(f"{path.name} lists other samples above its table than in it: it is damaged, {AGAIN}")
    alike = said.apply(lambda c: c.duplicated(keep=False).all() and c.duplicated().sum() == len(c) - 1)
    constant = [c for c in said.columns[alike] if c not in ("title", "source_name_ch1")]
    cells = labels(said.drop(columns=[*constant, "geo_accession"]).rename(columns=plain))
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
        hits = {label: text[name].str.contains(rule) for label, rule in RESPONSE.items()}
        # "non-responder" holds the word responder.
        no = hits["non_responder"]
        yes = hits["responder"] & ~no
        if (yes ^ no).all() and yes.any() and no.any():
            return np.where(yes, "responder", "non_responder")
    return None


# Tables with genes in rows


def matrix(
    paths: list[Path],
    *,
    ids: int = 1,
    short: str | int = 0,
    full: str | int | None = None,
    cut: str = "",
    cells: dict | None = None,
    key: str = "title",
    key_to_cell: tuple[str, str] | None = None,
    obs: dict | None = None,
    drop: dict | None = None,
):
    r"""A table with genes in rows, and labels from the series matrix or another table beside it.

    Layout, each gzipped:

    - Muraro, GSE85241 ``…cellsystems_dataset_4donors_updated.csv.gz``: tabs in spite of the name; a header without a
      field above the genes, then ``SYMBOL__chr1`` and one number for each of 3,072 cells (D28-1_1: donor 28, library
      1, well 1). Fractional molecules, corrected for barcodes that met by chance: units none. No cell types in GEO;
      options ``cut="__chr.*$"``, ``cells={"donor": r"^(D\d+)", "library": r"^(D\d+[-.]\d+)"}``.
    - Wang, GSE83139 ``…tbx-v-f-norm-ntv-cpms.csv.gz``: tabs; seven columns of gene facts (chr, start, end, strand,
      transcript, part, gene), then counts per million of cells ``reads.<id>``; types in two series matrices whose
      titles end in the id. Options ``ids=7, short="gene", full="transcript", key_to_cell=(r"^.*\s(\S+)$",
      r"reads.\1")``.
    - Xin, GSE81608 ``…human_islets_rpkm.txt.gz``: tabs; ``gene.id`` (Entrez numbers), then RPKM of ``Sample_1`` to
      ``Sample_1600``; types in the series matrix, titled "Pancreatic islet cell sample 1".

    Parameters
    ----------
    paths : list of Path
        The table; then series matrices, or tables of labels with a header (tabs or commas).
    ids : int
        Columns at the start of a row that hold no measurement.
    short, full : str or int
        Which of them names a gene, and which names it where the short name is missing or stands twice.
    cut : str
        Regular expression of what is cut from the short name; where two genes are then alike, both keep the full name.
    cells : dict
        Column of ``obs`` to a regular expression whose first group is taken from the cell's name.
    key : str
        Column of the labels that names the cells.
    key_to_cell : pair of str
        Regular expression and replacement that make a cell's name of the key.
    obs : dict
        Column of ``obs`` to column of the labels (characteristics are named in lower case with underscores).
    drop : dict
        Column of ``obs`` to labels whose cells are left out: those the authors dropped, or took for mixtures.

    Returns
    -------
    AnnData
        ``X``: float32 CSR, cells × genes. ``obs``: as asked; missing where the labels do not name the cell. ``batch``
        is the platform, donor or library, where one of them is known and no batch was asked for.

    Raises
    ------
    DataError
        If a file is damaged or the labels do not fit the cells.
    """
    path, *others = paths
    rows, names, X = numbers(path, ids=ids)
    first = _id(rows, short, path)
    first = first.str.replace(cut, "", regex=True) if cut else first
    genes = distinct(first, _id(rows, full or 0, path), path.name)
    var = rows.rename(columns=lambda c: plain(str(c)) or "name").set_index(pd.Index(genes)) if ids > 1 else None
    table, notes = pd.DataFrame(index=names), []
    for new, rule in (cells or {}).items():
        table[new] = names.astype(str).str.extract(rule, expand=False).to_numpy()
        if table[new].isna().any():
            raise DataError(
                f"{path.name} names cells such as {shown(names[table[new].isna()])}, in which {rule!r} finds no {new}: "
                "the file lies on its side, or is another release"
            )
    if others:
        for new, values in _labelled(names, others, path, key, key_to_cell, obs).items():
            table[new] = values.to_numpy()
        unnamed = int(table[list(obs or {})].isna().all(axis=1).sum()) if obs else 0
        notes = [f"{many(unnamed, 'cell')} that the labels do not name"] if unnamed else []
    source = next((c for c in ("batch", "platform", "library", "donor") if c in table), None)
    if source:
        table["batch"] = table[source]
    made = assembled(X.T.tocsr(), genes, table, "none", path.name, var=var, notes=notes)
    for name, values in (drop or {}).items():
        if name not in made.obs:
            raise DataError(
                f"there is no column {name!r} to drop {shown(values)} by; there are {shown(made.obs.columns)}"
            )
        gone = made.obs[name].isin(list(values)).to_numpy()
        made = made[~gone].copy()
        made.obs[name] = made.obs[name].cat.remove_unused_categories()
        notes = made.uns.get("notes", [])
        made.uns["notes"] = [*notes, f"{many(int(gone.sum()), 'cell')} of {name} {shown(values)} left out"]
    return made


def _id(ids, which, path):
    return ids.iloc[:, which] if isinstance(which, int) else column(ids, which, path)


def _labelled(names, paths, matrix_path, key, key_to_cell, obs) -> pd.DataFrame:
    tables = []
    for path in paths:
        table = _label_table(path)
        index = column(table, key if key in table else table.columns[0], path).astype(str)
        if key_to_cell:
            index = index.str.replace(*key_to_cell, regex=True)
        table = table.rename(columns=plain)
        missing = [old for old in (obs or {}).values() if plain(old) not in table]
        if missing:
            raise DataError(f"{path.name} has no column {shown(missing)}; it has {shown(table.columns)}: correct obs")
        picked = pd.DataFrame({new: column(table, plain(old), path) for new, old in (obs or {}).items()})
        tables.append(picked.set_index(pd.Index(index)))
    table = labels(pd.concat(tables))
    source = names_of_files(paths)
    if not names.isin(table.index).any():  # R writes D28.1_1 for D28-1_1
        loose = [pd.Index(i.astype(str).str.replace(r"\W", "_", regex=True)) for i in (names, table.index)]
        return joined(loose[0], table.set_axis(loose[1]), matrix_path.name, source)
    return joined(names, table, matrix_path.name, source)


def _label_table(path):
    with opened(path) as stream:
        if stream.peek(1).startswith(b"!"):
            return samples(stream, path).reset_index(drop=True)
    return words(path)
