"""The ``.gct`` format: genes × samples in tabs, under two lines that state the version and the size."""

import pandas as pd

from shared.data.errors import DataError
from shared.data.io import named
from shared.data.io.tables import AGAIN, blocks, fields, joined, opened
from shared.data.validate.names import MISSING


def head(stream, path) -> tuple[int, pd.Index]:
    """The number of rows that is stated, and the names of the samples; the stream then stands before the rows."""
    version = stream.readline().strip()
    if version != b"#1.2":
        raise DataError(f"{path.name} begins with {version[:20]!r} where #1.2 is due: another version, save it as 1.2")
    sizes = [int(n) for n in stream.readline().split()[:2] if n.isdigit()]
    name, symbol, *samples = [*fields(stream.readline(), "\t"), "", ""]
    if len(sizes) < 2 or (name.lower(), symbol.lower()) != ("name", "description"):
        raise DataError(f"{path.name} does not state its size, or has no Name and Description: it is damaged, {AGAIN}")
    return sizes[0], pd.Index(samples[: sizes[1]], dtype=object)


def read(paths):
    """A ``.gct`` file, gzipped or not: samples as cells, ``Name`` as the genes' names, ``Description`` in ``var``.

    ``X``: int64 or float64 ndarray, rounded by the door. Units are not known; missing values are NaN, and genes may
    stand twice, for the door to judge. :class:`DataError` if the file is damaged, another version, or not as large as
    it says.
    """
    (path,) = paths
    with opened(path, whole=False) as stream:
        due, samples = head(stream, path)
        names, X = joined(blocks(stream, path, "\t", 2, samples, absent=tuple(MISSING), due=due))
    var = {"description": names[1].to_numpy()}
    return named(X.T, pd.Index(names[0], dtype=object), samples, path.name, duplicated_genes=True, var=var)
