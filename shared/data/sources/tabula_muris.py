"""Tabula Muris: the organs of the mouse, sorted cells in tables and droplets in 10x folders."""

import re
import zipfile

import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import many
from shared.data.io.tables import refused, words
from shared.data.io.tenx import kind_of, triplet
from shared.data.sources.common import assembled, facts, numbers, one_of_each, together
from shared.data.validate.names import distinct

FILES = {"data": r"\.zip$", "annotations": r"(?i)^annotations", "metadata": r"(?i)^metadata"}
COLUMNS = {
    "cell_type": "cell_ontology_class",
    "free_annotation": ("free_annotation",),
    "subtissue": ("subtissue",),
    "donor": ("mouse.id", "mouse_id"),
    "sex": ("mouse.sex", "mouse_sex"),
}
OF_CHANNELS = {name: COLUMNS[name] for name in ("donor", "sex")}


def read(paths):
    """Cells × genes of all organs: the archive, the annotations, and perhaps ``metadata_droplet.csv``, in any order.

    Layout: ``FACS.zip`` holds ``FACS/<Organ>-counts.csv``, commas: a header with an empty first field and the cells
    (well.plate.mouse...: A1.B000610.3_56_F.1.1), one row a gene, reads. ``droplet.zip`` holds a 10x folder (version 2)
    for each channel, ``droplet/<Organ>-<channel>/{matrix.mtx, genes.tsv, barcodes.tsv}``, UMI counts. The annotations
    (``annotations_FACS.csv``, ``annotations_droplet.csv``) have one row for each cell the authors kept: cell,
    cell_ontology_class, tissue, mouse.id and more; droplets are named ``<channel>_<barcode without -1>``. 92 rows of
    the sorted cells are spike-in controls (ERCC-). Organs are read one at a time, out of the archive.

    ``X``: float32 CSR, counts. ``obs``: cell_type (missing for cells the authors did not annotate), tissue, donor, sex,
    batch (plate or channel), free_annotation, subtissue as far as they are given. ``var``: spike_in.
    """
    path, annotations, metadata = one_of_each(paths, FILES, optional=["metadata"])
    with refused(path, "an archive"):
        X, genes, obs = together(_organs(path))
    said = words(annotations, ",")
    obs = pd.concat([facts(said, COLUMNS, obs.index, path.name, annotations, key="cell"), obs], axis=1)
    gone = len(said) - int(said["cell"].isin(obs.index).sum())
    notes = [f"{many(gone, 'annotated cell')} not among the cells read"] if gone else []
    if metadata is not None:  # it knows cells that are not annotated, too
        told = facts(words(metadata, ","), OF_CHANNELS, obs["batch"], "the channels", metadata, key="channel")
        obs[list(told)] = told.to_numpy()
    var = pd.DataFrame({"spike_in": pd.Series(genes, dtype=object).str.match(r"ERCC-").to_numpy()})
    return assembled(X, genes, obs, "counts", path.name, var=var, notes=notes)


def _organs(path):
    archive = zipfile.Path(zipfile.ZipFile(path))
    members = [archive / name for name in sorted(archive.root.namelist()) if "__MACOSX" not in name]
    tables = [m for m in members if re.search(r"-counts\.csv(\.gz)?$", m.name)]
    folders: dict = {}
    for member in members:
        if kind_of(member):
            folders.setdefault(member.parent.name, []).append(member)
    if not (tables or folders):
        raise DataError(f"{path.name} holds neither <Organ>-counts.csv nor 10x folders: it is another archive")
    for table in tables:
        ids, cells, X = numbers(table, units="counts")
        plates = cells.str.extract(r"^[A-P]\d+\.([^.]+)", expand=False)
        obs = pd.DataFrame({"tissue": table.name.split("-counts.csv")[0], "batch": plates}, index=cells)
        yield X.T.tocsr(), ids.iloc[:, 0], obs, table.name
    for folder, files in folders.items():
        organ, _, channel = folder.partition("-")
        X, genes, codes = triplet(files)
        cells = channel + "_" + codes.str.replace(r"-\d+$", "", regex=True)
        names = distinct(genes["symbol"], genes["id"], f"genes.tsv of {folder}")
        yield X, names, pd.DataFrame({"tissue": organ, "batch": channel}, index=cells), folder
