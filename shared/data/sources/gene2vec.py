"""Gene2vec: published vectors of genes, learned from which genes are expressed together."""

from itertools import chain

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import once
from shared.data.io.tables import AGAIN, blocks, joined, opened
from shared.data.sources.common import assembled


def read(paths):
    """Numbers of the vectors × genes, of ``gene2vec_dim_200_iter_9.txt``, gzipped or not.

    Layout: no header; one line a gene: its symbol, a tab or a blank, and its numbers, parted by blanks. Files of
    word2vec begin with a line of two numbers, how many genes there are and how long a vector is. ``X``: float32
    ndarray; what stands for cells are the numbers of a vector, called ``1``, ``2`` and so on.
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
        names, vectors = joined(blocks(chain([first], rows), path, "\t", 1, columns, "z", due=due))
    genes = pd.Index(names.iloc[:, 0], dtype=object)
    once(genes, path.name)
    return assembled(vectors.T.astype(np.float32), genes, pd.DataFrame(index=columns), "none", path.name)
