"""Tabula Muris: the organs of the mouse, sorted cells in tables and droplets in 10x folders."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.constraints import OneOf, require
from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io.assemble import assembled, joined, labels, names_of_files
from shared.data.io.mtx import barcodes, counted, features, fitted, named
from shared.data.io.text import AGAIN, column, numbers, refused, words

FACTS = {
    "cell_type": ("cell_ontology_class",),
    "free_annotation": ("free_annotation",),
    "subtissue": ("subtissue",),
    "donor": ("mouse.id", "mouse_id"),
    "sex": ("mouse.sex", "mouse_sex"),
}


def read(paths: list[Path], *, tissues: Iterable | None = None, unannotated: str = "keep"):
    """Cells × genes of all organs, or of some.

    Layout: ``FACS.zip`` holds ``FACS/<Organ>-counts.csv``, comma-separated: a header with an empty first field and the
    cells (well.plate.mouse...: A1.B000610.3_56_F.1.1), one row a gene, reads. ``droplet.zip`` holds a 10x folder
    (version 2) for each channel, ``droplet/<Organ>-<channel>/{matrix.mtx, genes.tsv, barcodes.tsv}``, UMI counts. The
    annotations (``annotations_FACS.csv``, ``annotations_droplet.csv``) have one row for each cell the authors kept:
    cell, cell_ontology_class, tissue, mouse.id and more; droplets are named ``<channel>_<barcode without -1>``. 92
    rows of the sorted cells are spike-in controls (ERCC-). Organs are read one at a time, out of the archive.

    Parameters
    ----------
    paths : list of Path
        The archive, or its unpacked tables (sorted cells only); then annotations, and perhaps ``metadata_droplet.csv``
        (channel, tissue, mouse.id), in any order.
    tissues : sequence of str, optional
        Read these organs only, named as in the archive.
    unannotated : {"keep", "drop"}
        Cells the authors did not annotate have no cell_type; drop them. Some annotated ones have none either.

    Returns
    -------
    AnnData
        ``X``: float32 CSR, counts. ``obs``: cell_type, tissue, donor, sex, batch (plate or channel), free_annotation,
        subtissue as far as they are given. ``var``: spike_in.

    Raises
    ------
    DataError
        If a file is damaged, organs name other genes, or the annotations name none of the cells.
    """
    from scipy import sparse

    require(OneOf("keep", "drop"), unannotated=unannotated)
    found = _sorted(paths)
    notes = _annotations(found["annotations"])
    tissues = None if tissues is None else {tissues} if isinstance(tissues, str) else set(tissues)
    with refused(found["data"][0], "an archive"):
        organs = _organs(found["data"])
    there, what = sorted({o for o, *_ in organs}), names_of_files(found["data"])
    lost = sorted((tissues or set()).difference(there))
    if lost:
        raise DataError(f"{what} has no organ {shown(lost)}; it has {shown(there)}")
    parts, obs, genes = [], [], None
    for organ, batch, files in organs:
        if tissues is not None and organ not in tissues:
            continue
        X, own, cells = _sorted_cells(files) if batch is None else _droplets(files, batch)
        if genes is not None and not np.array_equal(own, genes):
            raise DataError(
                f"{files[0].name} of {organ} names other genes than the organs before it: it is damaged, {AGAIN}"
            )
        genes = own
        table = pd.DataFrame({"tissue": organ, "batch": batch or _plates(cells, files[0])}, index=cells)
        if unannotated == "drop":
            known = cells.isin(notes.index)
            X, table = X[known], table[known]
        parts.append(X)
        obs.append(table)
    table = pd.concat(obs)
    if not table.index.isin(notes.index).any():
        raise DataError(
            f"{found['annotations'].name} names none of the cells ({shown(notes.index)} beside {shown(table.index)}): "
            "the annotations are of the other technology, or of another release"
        )
    facts = joined(table.index, notes, what, found["annotations"].name)
    table = pd.concat([facts, table], axis=1)
    if found["metadata"] is not None:
        table = _of_channels(found["metadata"], table)
    gone = len(notes) - int(notes.index.isin(table.index).sum())
    said = [f"{many(gone, 'annotated cell')} not among the cells read"] if gone and tissues is None else []
    var = pd.DataFrame({"spike_in": pd.Series(genes, dtype=object).str.match(r"ERCC-").to_numpy()})
    return assembled(sparse.vstack(parts, format="csr"), genes, table, "counts", what, var=var, notes=said)


def _sorted(paths):
    kinds: dict = {"data": [], "annotations": None, "metadata": None}
    for path in paths:
        kind = next((k for k in ("annotations", "metadata") if path.name.lower().startswith(k)), "data")
        if kind == "data":
            kinds["data"].append(path)
        elif kinds[kind] is not None:
            raise DataError(f"{path.name} and {kinds[kind].name} are both {kind}: give one")
        else:
            kinds[kind] = path
    if not kinds["data"] or kinds["annotations"] is None:
        raise DataError(f"{names_of_files(paths)}: FACS.zip or droplet.zip, and the annotations, are needed")
    return kinds


def _organs(paths):
    """(organ, channel or None, files) of everything in an archive or among paths."""
    members = []
    for path in paths:
        if path.name.endswith(".zip"):
            if not path.stat().st_size:
                raise DataError(f"{path.name} is empty: the copy or download may have stopped early")
            archive = zipfile.Path(zipfile.ZipFile(path))
            members += [archive / n for n in archive.root.namelist() if not n.endswith("/") and "__MACOSX" not in n]
        else:
            members.append(path)
    organs = [
        (m.name.split("-counts.csv")[0], None, [m]) for m in members if re.search(r"-counts\.csv(\.gz)?$", m.name)
    ]
    folders: dict = {}
    for member in members:
        if re.search(r"(matrix\.mtx|genes\.tsv|features\.tsv|barcodes\.tsv)(\.gz)?$", member.name):
            folders.setdefault(member.parent.name, []).append(member)
    organs += [(f.partition("-")[0], f.partition("-")[2], files) for f, files in sorted(folders.items())]
    if not organs:
        raise DataError(
            f"{names_of_files(paths)} holds neither <Organ>-counts.csv nor 10x folders: it is another archive"
        )
    return sorted(organs, key=lambda o: (o[0], o[1] or ""))


def _sorted_cells(files):
    found = numbers(files[0], ",", units="counts")
    return found.X.T.tocsr(), found.ids.iloc[:, 0].to_numpy(), found.columns


def _droplets(files, channel):
    kinds = {k: [f for f in files if k in f.name] for k in ("matrix", "genes", "barcodes")}
    kinds["genes"] += [f for f in files if "features" in f.name]
    if any(len(v) != 1 for v in kinds.values()):
        raise DataError(f"the folder of {channel} holds {names_of_files(files)}: matrix, genes and barcodes are needed")
    X, table = counted(kinds["matrix"][0]), features(kinds["genes"][0])
    codes = barcodes(kinds["barcodes"][0])
    fitted(X, table, codes, f"matrix.mtx of {channel}")
    genes, _ = named(table, "symbol", f"genes.tsv of {channel}")
    return X, genes, channel + "_" + codes.str.replace(r"-\d+$", "", regex=True)


def _plates(cells, path):
    plates = cells.str.extract(r"^[A-P]\d+\.([^.]+)", expand=False)
    if plates.isna().any():
        raise DataError(
            f"{path.name} has cells whose names hold no plate ({shown(cells[plates.isna()])}): it is another table"
        )
    return plates.to_numpy()


def _annotations(path):
    table = words(path, ",")
    index = pd.Index(column(table, "cell", path), dtype=object)
    there = {new: next((n for n in old if n in table), None) for new, old in FACTS.items()}
    if there["cell_type"] is None:
        raise DataError(f"{path.name} has no column cell_ontology_class; it has {shown(table.columns)}: {AGAIN}")
    picked = pd.DataFrame({new: column(table, old, path) for new, old in there.items() if old})
    return labels(picked).set_axis(index)


def _of_channels(path, table):
    said = words(path, ",")
    said = said.set_axis(pd.Index(column(said, "channel", path), dtype=object), axis=0)
    said = labels(joined(pd.Index(table["batch"]), said, "the channels", path.name))
    there = {new: old for new in ("donor", "sex") for old in reversed(FACTS[new]) if old in said}
    return table.assign(**{new: said[old].to_numpy() for new, old in there.items()})  # also where not annotated
