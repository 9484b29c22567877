"""The mixology batches as others read them: doublets, damage, and what checks cost beside reading."""

import gzip
import time

import numpy as np
import pandas as pd
import pytest
from official_layouts import h5ad
from scipy import sparse

from shared.data.errors import DataError
from shared.data.sources import READERS

MIXES = ["sc_celseq2", "sc_dropseq", "sc_celseq2_5cl_p1"]


@pytest.fixture(scope="module")
def mixes(fixtures):
    folder = "official/sc_mixology_data_csv"
    return [fixtures(f"{folder}/{b}.{k}.csv.gz") for b in MIXES for k in ("count", "metadata")]


def test_mixology(fixtures, mixes):
    found, known = READERS["mixology"](mixes), h5ad(fixtures, "cell_lines_sc_mixology_5batches")
    assert found.shape == (796, 13207)
    assert found.obs["demuxlet_cls"].value_counts().to_dict() == {"SNG": 606, "DBL": 190}
    known = known[found.obs_names]
    genes = known.var_names[known.var_names.isin(found.var_names)]
    assert len(genes) == 11533, "the five batches share fewer genes than these three"
    assert (found[:, genes].X != known[:, genes].X).nnz == 0
    for name in ("cell_type", "batch", "demuxlet_cls"):
        assert (found.obs[name].astype(str) == known.obs[name].astype(str)).all(), name


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_real_packed_files_damaged(tmp_path, mixes, damage):
    """Cut or changed anywhere, a packed file is refused or read right."""
    rng = np.random.default_rng(3)
    small = mixes[3].read_bytes()
    whole = READERS["mixology"](mixes[2:4])
    for at in rng.integers(11, len(small) - 1, 6):
        path = tmp_path / mixes[3].name
        path.write_bytes(small[:at] if damage == "cut" else small[:at] + bytes([small[at] ^ 16]) + small[at + 1 :])
        try:
            found = READERS["mixology"]([mixes[2], path])
        except DataError as e:
            assert path.name in str(e)
        else:
            assert damage == "flip" and (found.obs == whole.obs).all(axis=None)


def process_seconds(call):
    start = time.process_time()
    call()
    return time.process_time() - start


def plain(path):
    """What a script would do: pandas, then float32 (CSR for cells)."""
    values = pd.read_csv(path, index_col=0).to_numpy(np.float32).T
    return sparse.csr_matrix(values) if path.name.endswith(".gz") else np.ascontiguousarray(values)


def test_checks_cost_little_beside_reading(fixtures, mixes):
    """Process time beside plain pandas on the same file, the better of two each; loose, because machines are shared."""
    path = fixtures("official/NASA_GeneLab/GLDS-105_rna_seq_Unnormalized_Counts.csv")
    for reader, files in (("genelab", [path]), ("mixology", mixes[2:4])):
        ours = min(process_seconds(lambda r=reader, f=files: READERS[r](f)) for _ in range(2))
        theirs = min(process_seconds(lambda f=files: plain(f[0])) for _ in range(2))
        assert ours < 3 * theirs + 0.2, (reader, ours, theirs)


def test_a_real_file_unpacked_by_a_browser_is_read(tmp_path, mixes):
    """Some browsers unpack and keep the name."""
    paths = []
    for p in mixes[2:4]:
        paths.append(tmp_path / p.name)
        paths[-1].write_bytes(gzip.decompress(p.read_bytes()))
    found, known = READERS["mixology"](paths), READERS["mixology"](mixes[2:4])
    assert (found.X != known.X).nnz == 0 and list(found.var_names) == list(known.var_names)
