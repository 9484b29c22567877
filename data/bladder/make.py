"""Make ``bladder.h5ad``: ``python data/bladder/make.py [bladderbatch.deb genedataset.whl]``.

It needs rdata, and apt-get where the Debian package is not given.
"""

import io
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import rfiles  # noqa: E402
from wheel import deb_members, member, write  # noqa: E402

STUDY = "r-bioc-bladderbatch=1.36.0-1", "ad40440450a8c3ff07e074d9096d8318c46ee5dd98ee95dd22de3fbb6d3de6db"
PROBES = (
    "genedataset==0.6.2",
    "94925f31c70dd8d59d663d24ceee4122996178b9ff9fade9668ac909e1c592c3",
    "genedataset/data/ProbeIdGeneIdMapping_Affymetrix.txt",
)


def symbols(wheel=None):
    """The one symbol of each probe set that has exactly one."""
    pairs = pd.read_csv(io.BytesIO(member(*PROBES, wheel)), sep="\t", names=["probe", "ensembl"], header=0, dtype=str)
    names = pd.read_csv(HERE.parent / "genes" / "human.tsv.gz", sep="\t", keep_default_na=False)
    known = pairs.merge(names, on="ensembl")[["probe", "symbol"]].drop_duplicates()
    return known[~known["probe"].duplicated(keep=False)].set_index("probe")["symbol"]


def make(deb=None, wheel=None):
    """Log intensities of 57 samples × 11,871 genes with type, outcome and batch, as AnnData."""
    (content,) = deb_members(*STUDY, ["usr/lib/R/site-library/bladderbatch/data/bladderdata.rda"], deb)
    study = rfiles.rda(content)["bladderEset"]
    measured = study.assayData["exprs"].to_pandas().T  # samples × probe sets
    known = study.phenoData.data.loc[measured.index]
    symbol = symbols(wheel).reindex(measured.columns).dropna()
    # The brightest probe set stands for its gene; which one that is does not depend on any label.
    brightest = measured[symbol.index].mean().groupby(symbol.to_numpy()).idxmax()
    table = measured[brightest]
    obs = pd.DataFrame({"cell_type": known["cancer"], "outcome": known["outcome"], "batch": known["batch"].astype(int)})
    obs = obs.astype(str).apply(pd.Categorical).set_axis(pd.Index(table.index.str[: -len(".CEL")], name="sample"))
    var = pd.DataFrame(index=pd.Index(brightest.index.astype(str), name="symbol"))
    return ad.AnnData(table.to_numpy(np.float16), obs=obs, var=var)


if __name__ == "__main__":
    write(make(*sys.argv[1:3]), HERE / "bladder.h5ad")
