"""The files scJoint ships: dense HDF5, with the types of the cells beside each."""

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from shared.data.errors import DataError
from shared.data.genes.lists import many
from shared.data.io import names_of_files
from shared.data.io.tables import refused, words
from shared.data.io.tenx import text_of
from shared.data.sources.common import assembled, labels, together
from shared.data.validate.values import sound

BLOCK = 8_000_000  # numbers read at a time


def read(paths, *, batches, modality):
    """Several ``.h5`` files of the same features, each followed by a ``.csv`` of its cells' types where there is one.

    Layout: the group ``matrix`` with ``data`` as a full table of features × cells, ``barcodes`` and ``features``; and
    beside it a ``…cellTypes.csv`` as R writes it (a number or the cell's name, then the type), in the order of the
    cells. The values are log(1 + x) of counts or of gene activity, not counts. `batches` and `modality` are what to
    write as batch and modality, one for each ``.h5``.

    ``X``: float32 CSR. ``obs``: cell_type where there are types (missing in the other files), batch, modality. Names
    that two files share are written ``batch_name`` in all.
    """
    starts = [i for i, path in enumerate(paths) if path.name.endswith(".h5")]
    groups = [paths[i:j] for i, j in zip(starts, [*starts[1:], len(paths)])]
    if starts[:1] != [0] or max(map(len, groups)) > 2:
        raise DataError(f"{names_of_files(paths)}: types follow no .h5 file of their own: give each after its matrix")
    if not len(batches) == len(modality) == len(groups):
        raise DataError(f"batches or modality do not fit {many(len(groups), '.h5 file')}: give one for each")
    parts = []
    for (path, *types), batch, kind in zip(groups, batches, modality):
        X, cells, genes = _full(path)
        obs = pd.DataFrame({"cell_type": _types(types[0], cells, path)} if types else None, index=cells)
        parts.append((X, genes, obs.assign(modality=kind, batch=batch), path.name))
    X, genes, obs = together(parts)
    if obs.index.has_duplicates:
        obs.index = obs["batch"] + "_" + obs.index
    return assembled(X, genes, obs, "log", names_of_files(paths))


def _full(path):
    with refused(path, "a matrix of scJoint"), h5py.File(path) as file:
        group = file["matrix"]
        cells, features, data = text_of(group["barcodes"]), text_of(group["features"]), group["data"]
        if data.shape != (len(features), len(cells)):
            raise DataError(f"{path.name} holds {data.shape}, and names {len(features)} × {len(cells)}: it is damaged")
        step, names = max(1, BLOCK // max(1, len(cells))), pd.DataFrame(features)
        spans = (slice(start, start + step) for start in range(0, len(features), step))
        parts = [sparse.csr_matrix(sound(data[span], "none", names[span], path), dtype=np.float32) for span in spans]
        return sparse.vstack(parts, format="csr").T.tocsr(), pd.Index(cells, dtype=object), features


def _types(path, cells, matrix):
    table = words(path, ",")
    if table.shape[1] != 2 or list(table.iloc[:, 0]) not in ([str(i + 1) for i in range(len(cells))], list(cells)):
        raise DataError(f"{path.name} lacks types of {matrix.name}'s cells, or has another order: fetch both again")
    return labels(table.iloc[:, 1]).to_numpy()
