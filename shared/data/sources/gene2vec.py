"""Gene2vec: published vectors of genes, learned from which genes are expressed together."""

from itertools import chain

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import once
from shared.data.io.tables import AGAIN, blocks, joined, opened, sound
from shared.data.sources.common import assembled


def read(paths):
    """Numbers of the vectors × genes.

    Layout: no header; one line a gene: its symbol, a tab or a blank, and its numbers, parted by blanks. Files of
    word2vec begin with a line of two numbers, how many genes there are and how long a vector is.

    :class:`DataError` is raised if the file is damaged, a line has another number of fields than the first, or a gene
    has two lines.

    Parameters
    ----------
    paths : list of Path
        One table, gzipped or not: ``gene2vec_dim_200_iter_9.txt``.

    Returns
    -------
    AnnData
        ``X``: float32 ndarray. What stands for cells are the numbers of a vector, called ``1``, ``2`` and so on.
    """
    (path,) = paths
    with opened(path) as stream:
        rows = (b"\t".join(line.split()) + b"\n" for line in stream)
        first, due = next((row for row in rows if row != b"\n"), b""), None
        if len(said := first.split()) == 2 and all(number.isdigit() for number in said):
            due, first = int(said[0]), next((row for row in rows if row != b"\n"), b"")
        columns = [str(i) for i in range(1, len(first.split()))]
        if not columns:
            raise DataError(f"{path.name} has no numbers beside the name of a gene: it is another table, {AGAIN}")
        names, vectors = joined(
            (ids, sound(block, "z", ids, path))
            for ids, block in blocks(chain([first], rows), path, "\t", 1, columns, due=due)
        )
    genes = pd.Index(names.iloc[:, 0], dtype=object)
    once(genes, path.name)
    return assembled(vectors.T.astype(np.float32), genes, pd.DataFrame(index=columns), "none", path.name)
