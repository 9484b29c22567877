"""The readers on real files in their official form, beside the same data as others read them."""

import gzip
import time

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from shared.data.errors import DataError
from shared.data.readers import READERS

BARON = [
    "GSM2230757_human1_umifm_counts.csv.gz",
    "GSM2230758_human2_umifm_counts.csv.gz",
    "GSM2230759_human3_umifm_counts.csv.gz",
    "GSM2230760_human4_umifm_counts.csv.gz",
    "GSM2230761_mouse1_umifm_counts.csv.gz",
    "GSM2230762_mouse2_umifm_counts.csv.gz",
]
MIXES = ["sc_celseq2", "sc_dropseq", "sc_celseq2_5cl_p1"]
# Totals of the three files, summed by awk from the files as they lie.
OSD = {99: 989_860_858.3, 104: 732_775_583.8, 105: 672_590_507.5}


def h5ad(fixtures, name):
    import anndata as ad

    return ad.read_h5ad(fixtures(f"h5ad/{name}.h5ad"))


@pytest.fixture(scope="module")
def baron(fixtures):
    return [fixtures(f"official/derived_geo_layout_GSE84133/{n}") for n in BARON]


@pytest.fixture(scope="module")
def mixes(fixtures):
    folder = "official/sc_mixology_data_csv"
    return [fixtures(f"{folder}/{b}.{k}.csv.gz") for b in MIXES for k in ("count", "metadata")]


@pytest.fixture(scope="module")
def human(baron):
    return READERS["geo_umi"](baron, species="human")


def test_baron(fixtures, baron):
    found, known = READERS["geo_umi"](baron), h5ad(fixtures, "pancreas_baron_human_mouse_350")
    assert found.shape == (350, 12474) and set(found.obs_names) == set(known.obs_names)
    known = known[found.obs_names]
    assert list(found.var_names) == list(known.var_names)
    assert (found.X != known.X).nnz == 0
    for name in ("cell_type", "donor", "species"):
        assert (found.obs[name].astype(str) == known.obs[name].astype(str)).all(), name


def test_baron_by_species(human):
    assert set(human.obs["species"]) == {"human"} and human.obs["donor"].nunique() == 4
    assert human.uns["units"] == "counts"


def test_types_of_baron_agree_with_those_of_all_cells(fixtures, human):
    known = pd.read_csv(fixtures("h5ad/baron_human_cell_labels_8569.csv.gz"), index_col="cell_id")["cell_type"]
    found = human.obs["cell_type"].astype(str)
    assert found.index.isin(known.index).all() and (found == known[found.index]).all()


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


def test_doublets_can_be_dropped(mixes):
    found = READERS["mixology"](mixes, doublets="drop")
    assert set(found.obs["demuxlet_cls"]) == {"SNG"} and found.n_obs == 606
    assert any("190 doublets" in n for n in found.uns["notes"])


@pytest.mark.parametrize("n", OSD)
def test_spaceflight(fixtures, n):
    path = fixtures(f"official/NASA_GeneLab/GLDS-{n}_rna_seq_Unnormalized_Counts.csv")
    found = READERS["genelab"]([path])
    table = pd.read_csv(path, index_col=0)
    assert found.shape == (12, 55536)
    assert np.array_equal(found.X, table.to_numpy(np.float32).T)
    assert list(found.obs_names) == list(table.columns) and list(found.var_names) == list(table.index)
    assert abs(found.X.sum(dtype=np.float64) - OSD[n]) < 1e-7 * OSD[n]
    assert (np.floor(found.X) != found.X).sum() > 30_000, "expected counts, so units are none"
    assert found.uns["units"] == "none"
    assert found.obs["condition"].value_counts().to_dict() == {"flight": 6, "ground": 6}
    assert found.obs["donor"].is_unique and not found.var["spike_in"].any()


def test_the_same_mice_gave_three_muscles(fixtures):
    """What the book says of the published split, read from the names of the samples."""
    mice = {}
    for n in OSD:
        path = fixtures(f"official/NASA_GeneLab/GLDS-{n}_rna_seq_Unnormalized_Counts.csv")
        obs = READERS["genelab"]([path]).obs
        mice[n] = set(obs["donor"])
    assert mice[104] == mice[105] and len(mice[99] & mice[105]) == 6


def test_scjoint_proteins(fixtures):
    folder = "official/scJoint_demo_data"
    names = ["citeseq_control_adt.h5", "citeseq_control_cellTypes.csv"]
    names += ["asapseq_control_adt.h5", "asapseq_control_cellTypes.csv"]
    found = READERS["tenx_h5"](
        [fixtures(f"{folder}/{n}") for n in names], batches=["cite", "asap"], modality=["cite", "asap"]
    )
    for batch, name in (("cite", "pbmc_citeseq_adt_4644"), ("asap", "pbmc_asapseq_adt_4502")):
        known, part = h5ad(fixtures, name), found[(found.obs["batch"] == batch).to_numpy()]
        assert list(part.obs_names) == list(known.obs_names) and list(part.var_names) == list(known.var_names)
        assert abs(part.X - known.X).max() == 0
        assert (part.obs["cell_type"].astype(str) == known.obs["cell_type"].astype(str)).all()
    counts = np.expm1(found.X.data[found.X.data > 0].astype(np.float64))
    assert np.abs(counts / np.rint(counts) - 1).max() < 1e-5, "log(1 + count), as units log says"


def test_10x_folder(fixtures):
    folder = "official/derived_10x_layout_pbmc3k/filtered_gene_bc_matrices/hg19"
    paths = [fixtures(f"{folder}/{n}") for n in ("matrix.mtx.gz", "genes.tsv", "barcodes.tsv")]
    found, known = READERS["tenx_mtx"](paths), h5ad(fixtures, "pbmc3k_2638")
    known = known[found.obs_names.str.removesuffix("-1")]
    assert list(found.var_names) == list(known.var_names) and (found.X != known.X).nnz == 0


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
