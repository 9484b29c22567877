"""Make ``muscle.h5ad`` from three count tables of NASA GeneLab: ``python data/muscle/make.py``.

The tables are those of ``osd-105``, ``osd-104`` and ``osd-99`` in the catalogue: found in the folders of
``BORROWED_MIRROR``, or fetched, and checked by their sha256 either way.
"""

import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
from wheel import write  # noqa: E402

from shared.data.catalogue import catalog  # noqa: E402
from shared.data.download import get  # noqa: E402
from shared.data.sources import genelab  # noqa: E402

STUDIES = "osd-105", "osd-104", "osd-99"
LEAST = 360  # reads over the 36 samples: ten a sample
KEPT = ["condition", "tissue", "donor", "study", "batch"]


def read(study):
    (file,) = catalog()[study].route("official").files
    return genelab.read([get(file, kind="official")])


def make():
    """Counts of 36 samples × genes with condition, muscle, mouse and study, as AnnData."""
    three = [read(study) for study in STUDIES]
    assert all((one.var_names == three[0].var_names).all() for one in three)
    table = pd.read_csv(HERE.parent / "genes" / "mouse.tsv.gz", sep="\t").drop_duplicates("symbol", keep=False)
    symbol = pd.Series(three[0].var_names.map(table.set_index("ensembl")["symbol"]))
    counts = np.concatenate([one.X for one in three]).round()  # RSEM splits a read that fits several genes
    kept = (symbol.notna() & (counts.sum(0) >= LEAST)).to_numpy()
    obs = pd.concat([one.obs for one in three])[KEPT]
    obs = obs.apply(lambda column: pd.Categorical(column.astype(str))).set_axis(obs.index.astype(str))
    index = pd.Index(symbol[kept].astype(str), name="symbol")
    var = pd.DataFrame({"ensembl": three[0].var_names[kept].astype(str)}, index=index)
    return ad.AnnData(counts[:, kept].astype(np.float32), obs=obs, var=var)


if __name__ == "__main__":
    write(make(), HERE / "muscle.h5ad")
