"""Tabula Muris: the organs of the mouse, sorted cells in tables and droplets in 10x folders."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import many, shown
from shared.data.io import names_of_files
from shared.data.io.tables import AGAIN, refused, words
from shared.data.io.tenx import distinct, triplet
from shared.data.sources.common import assembled, column, joined, labels, numbers

FACTS = {
    "cell_type": ("cell_ontology_class",),
    "free_annotation": ("free_annotation",),
    "subtissue": ("subtissue",),
    "donor": ("mouse.id", "mouse_id"),
    "sex": ("mouse.sex", "mouse_sex"),
}


def read(paths: list[Path]):
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

    Returns
    -------
    AnnData
        ``X``: float32 CSR, counts. ``obs``: cell_type (missing for cells the authors did not annotate),
        tissue, donor, sex, batch (plate or channel), free_annotation, subtissue as far as they are given. ``var``:
        spike_in.

    Raises
    ------
    DataError
        If a file is damaged, organs name other genes, or the annotations name none of the cells.
    """
    from scipy import sparse

    found = _sorted(paths)
    notes = _annotations(found["annotations"])
    with refused(found["data"][0], "an archive"):
        organs = _organs(found["data"])
    what = names_of_files(found["data"])
    parts, obs, genes = [], [], None
    for organ, batch, files in organs:
        X, own, cells = _sorted_cells(files) if batch is None else _droplets(files, batch)
        if genes is not None and not np.array_equal(own, genes):
            raise DataError(
                f"{files[0].name} of {organ} names other genes than the organs before it: it is damaged, {AGAIN}"
            )
        genes = own
        parts.append(X)
        obs.append(pd.DataFrame({"tissue": organ, "batch": batch or _plates(cells, files[0])}, index=cells))
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
    said = [f"{many(gone, 'annotated cell')} not among the cells read"] if gone else []
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
    ids, cells, X = numbers(files[0], units="counts")
    return X.T.tocsr(), ids.iloc[:, 0].to_numpy(), cells


def _droplets(files, channel):
    X, table, codes = triplet(files)
    genes = distinct(table["symbol"], table["id"], f"genes.tsv of {channel}")
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
