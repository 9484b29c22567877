"""Files of the Gene Expression Omnibus: per-sample UMI tables, series matrices, and tables with genes in rows."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io.assemble import MISSING, assembled, distinct, joined, labels, names_of_files, only, plain
from shared.data.io.text import AGAIN, LARGEST, Numbers, column, fields, numbers, opened, separator_of, words

BEFORE = ["barcode", "assigned_cluster"]  # between a cell's name and its counts


def umi(paths: list[Path], *, species: str | None = None, units: str = "counts"):
    """Per-sample tables of UMI counts as Baron and others deposited them (GSE84133).

    Layout: comma-separated, gzipped, one file a donor. A row is a cell: its name (no heading), ``barcode``,
    ``assigned_cluster``, then one whole number for each gene. The files of one species name the same genes in one
    order.

    Parameters
    ----------
    paths : list of Path
        One or more files. The donor is the part of the name after ``GSM…_`` and before ``_umifm``: human1, mouse2.
    species : {"human", "mouse"}, optional
        Take the files of this species only. The two have other genes, so files of both are refused without it.
    units : str
        What the values are.

    Returns
    -------
    AnnData
        ``X``: float32 CSR, cells × genes. ``obs``: cell_type (the authors' cluster, made of these counts), donor, batch
        (the donor), species, barcode where known.

    Raises
    ------
    DataError
        If a file is damaged, the files name other genes, or no file is of `species`.
    """
    from scipy import sparse

    donors = [re.sub(r"^GSM\d+_|(_umifm)?_counts.*$|\.(csv|txt)(\.gz)?$", "", p.name) for p in paths]
    kinds = [(re.match(r"human|mouse", d) or [""])[0] for d in donors]
    chosen = [i for i, k in enumerate(kinds) if species in (None, k)]
    if not chosen:
        raise DataError(f"none of {names_of_files(paths)} is of {species!r}: the files are named after {shown(donors)}")
    parts, obs, genes = [], [], None
    for i in chosen:
        found = numbers(paths[i], ",", ids=3, units=units)
        if list(found.ids.columns[1:]) != BEFORE:
            raise DataError(
                f"{paths[i].name} begins with columns {shown(found.ids.columns)} where a cell's name, barcode and "
                f"assigned_cluster are due: it is another table, or a column was lost; {AGAIN}"
            )
        if genes is not None and not found.columns.equals(genes):
            raise DataError(
                f"{paths[i].name} and {paths[chosen[0]].name} name other genes, or the same in another order: "
                "take one species (option species), or fetch both again"
            )
        genes = found.columns
        parts.append(found.X)
        cells = pd.DataFrame(
            {"cell_type": labels(found.ids["assigned_cluster"]).to_numpy()}, index=found.ids.iloc[:, 0]
        )
        cells["donor"], cells["batch"], cells["species"] = donors[i], donors[i], kinds[i] or None
        cells["barcode"] = labels(found.ids["barcode"]).to_numpy()
        obs.append(cells)
    obs = pd.concat(obs).dropna(axis=1, how="all")
    return assembled(sparse.vstack(parts, format="csr"), genes, obs, units, names_of_files(paths))


# Series matrices

TABLE = ("!series_matrix_table_begin", "!series_matrix_table_end")


def samples(path) -> tuple[pd.DataFrame, int]:
    """What the head of a series matrix says of its samples, and the number of the line that begins the table.

    Returns
    -------
    DataFrame
        One row a sample, indexed by accession (GSM…): title, source_name_ch1 and the like, and one column for each key
        of the characteristics (``"cell subtype: beta"`` gives ``cell_subtype``).
    """
    found, keyed, begin = {}, {}, None
    with opened(path) as stream:
        for i, line in enumerate(stream):
            if line.startswith(TABLE[0].encode()):
                begin = i
                break
            if not line.startswith(b"!Sample_"):
                continue
            name, *values = fields(line, "\t", path)
            name = name.removeprefix("!Sample_")
            if name.startswith("characteristics"):
                _characteristics(values, keyed)
            else:
                # Some fields come in several lines (contact, protocols); the first names a sample best.
                found.setdefault(name, values)
    if begin is None or "geo_accession" not in found:
        raise DataError(f"{path.name} is no series matrix, or was cut before its table: {AGAIN}")
    wrong = [k for k, v in (found | keyed).items() if len(v) != len(found["geo_accession"])]
    if wrong:
        n = len(found["geo_accession"])
        raise DataError(f"{path.name} has not one value for each of {many(n, 'sample')} in {shown(wrong)}: {AGAIN}")
    table = pd.DataFrame(found | {k: v for k, v in keyed.items() if k not in found}, dtype=object)
    return table.set_index("geo_accession", drop=False), begin


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


def series(paths: list[Path], *, obs: dict | None = None, units: str = "none", missing: str = "refuse"):
    """A series matrix: what GEO makes of a study on arrays (GSE6434, ``GSE6434_series_matrix.txt.gz``).

    Layout: lines of ``!Series_…`` and ``!Sample_…`` with one quoted, tab-separated value for each sample, then, between
    ``!series_matrix_table_begin`` and ``…_end``, probes × samples under a header ``"ID_REF"``. Values are what the
    submitters gave, so one study is logged and the next is not. Rows are probes, not genes.

    Parameters
    ----------
    paths : list of Path
        One file.
    obs : dict, optional
        New name to name in the file, of columns of ``obs``.
    units : str
        What the values are, where it is known.
    missing : {"refuse", "drop"}
        What becomes of a probe without a value in some sample.

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
    said, begin = samples(path)
    table = _series_table(path, begin, missing, units)
    if list(table.columns) != list(said["geo_accession"]):
        raise DataError(f"{path.name} lists other samples above its table than in it: it is damaged, {AGAIN}")
    alike = said.apply(lambda c: c.duplicated(keep=False).all() and c.duplicated().sum() == len(c) - 1)
    constant = [c for c in said.columns[alike] if c not in ("title", "source_name_ch1")]
    cells = labels(said.drop(columns=[*constant, "geo_accession"]).rename(columns=plain))
    for new, old in (obs or {}).items():
        cells[new] = column(cells, plain(old), path)
    found = _response(said)
    if "response" not in cells and found is not None:
        cells["response"] = found
    dropped = table.ids.attrs.get("dropped", 0)
    notes = [f"{many(dropped, 'probe')} without a value in some sample left out"] if dropped else ()
    return assembled(np.ascontiguousarray(table.X.T), table.ids.iloc[:, 0], cells, units, path.name, notes=notes)


def _series_table(path, begin, missing, units) -> Numbers:
    require(OneOf("refuse", "drop"), missing=missing)
    with opened(path) as stream:
        text = stream.read().decode("utf-8")
    lines = text.splitlines()[begin + 1 :]
    if TABLE[1] not in lines:
        raise DataError(f"{path.name} has no end of its table: it was cut short, {AGAIN}")
    rows = list(csv.reader(lines[: lines.index(TABLE[1])], delimiter="\t", strict=True))
    if len(rows) < 2:
        raise DataError(f"{path.name} has an empty table: the study keeps its values in another file of the record")
    widths = {len(r) for r in rows}
    if len(widths) > 1:
        raise DataError(f"{path.name} has rows of {shown(sorted(widths))} fields: it is damaged, {AGAIN}")
    values = pd.DataFrame([r[1:] for r in rows[1:]], dtype=object)
    values = values.mask(values.isin(MISSING), None)
    lacking = values.isna().any(axis=1).to_numpy()
    if lacking.any() and missing == "refuse":
        raise DataError(
            f"{path.name} has no value in some sample for {many(int(lacking.sum()), 'probe')} "
            f"({shown([r[0] for r, bad in zip(rows[1:], lacking) if bad])}): missing='drop' leaves them out"
        )
    try:
        block = values[~lacking].to_numpy(dtype=np.float64)
    except ValueError as e:
        raise DataError(f"{path.name} has words where numbers are needed ({e}): it is damaged, {AGAIN}") from e
    if not (np.abs(block) <= LARGEST).all():
        raise DataError(f"{path.name} holds values that are not finite: it is damaged, {AGAIN}")
    ids = pd.DataFrame({"ID_REF": [r[0] for r in rows[1:]]}, dtype=object)[~lacking].reset_index(drop=True)
    ids.attrs["dropped"] = int(lacking.sum())
    return Numbers(ids, pd.Index(rows[0][1:], dtype=object), block.astype(np.float32))


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
    separator: str | None = None,
    corner: bool | None = None,
    ids: int = 1,
    short: str | int = 0,
    full: str | int | None = None,
    cut: str = "",
    cells: dict | None = None,
    units: str = "none",
    key: str = "title",
    key_to_cell: tuple[str, str] | None = None,
    obs: dict | None = None,
    drop: dict | None = None,
    orientation: str = "genes",
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
    separator : str, optional
        The one that the first line has most of, where not given.
    corner : bool, optional
        True where the header names every column, False where it leaves out the first; both are read where not given.
    ids : int
        Columns at the start of a row that hold no measurement.
    short, full : str or int
        Which of them names a gene, and which names it where the short name is missing or stands twice.
    cut : str
        Regular expression of what is cut from the short name; where two genes are then alike, both keep the full name.
    cells : dict
        Column of ``obs`` to a regular expression whose first group is taken from the cell's name.
    units : str
        What the values are.
    key : str
        Column of the labels that names the cells.
    key_to_cell : pair of str
        Regular expression and replacement that make a cell's name of the key.
    obs : dict
        Column of ``obs`` to column of the labels (characteristics are named in lower case with underscores).
    drop : dict
        Column of ``obs`` to labels whose cells are left out: those the authors dropped, or took for mixtures.
    orientation : {"genes", "cells"}
        What the rows are.

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
    separator = separator or separator_of(path)
    found = numbers(path, separator, ids=ids, corner=corner, units=units)
    require(OneOf("genes", "cells"), orientation=orientation)
    if orientation == "genes":
        first = _id(found.ids, short, path)
        genes = distinct(
            first.str.replace(cut, "", regex=True) if cut else first, _id(found.ids, full or 0, path), path.name
        )
        var = (
            found.ids.rename(columns=lambda c: plain(str(c)) or "name").set_index(pd.Index(genes)) if ids > 1 else None
        )
        X, names = found.X.T.tocsr(), found.columns
    else:
        genes, var, X, names = found.columns, None, found.X, pd.Index(_id(found.ids, short, path))
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
    made = assembled(X, genes, table, units, path.name, var=var, notes=notes)
    for name, values in (drop or {}).items():
        if name not in made.obs:
            raise DataError(
                f"there is no column {name!r} to drop {shown(values)} by; there are {shown(made.obs.columns)}"
            )
        made = only(made, ~made.obs[name].isin(list(values)), "cell", f"of {name} {shown(values)} left out")
        made.obs[name] = made.obs[name].cat.remove_unused_categories()
    return made


def _id(ids, which, path):
    return ids.iloc[:, which] if isinstance(which, int) else column(ids, which, path)


def _labelled(names, paths, matrix_path, key, key_to_cell, obs) -> pd.DataFrame:
    tables = []
    for path in paths:
        table = _label_table(path, key)
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


def _label_table(path, key):
    with opened(path, to_end=False) as stream:
        first = stream.readline()
    if first.startswith(b"!"):
        return samples(path)[0].reset_index(drop=True)
    separator = separator_of(path)
    with opened(path, to_end=False) as stream:
        widths = [len(fields(stream.readline(), separator, path)) for _ in range(2)]
    return words(path, separator, corner=widths[0] == widths[1])
