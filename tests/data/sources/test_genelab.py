"""GeneLab: what names of samples say, spike-ins, and mice that gave several muscles."""

import numpy as np
import pandas as pd
import pytest
from official_layouts import CASES, read, write

from shared.data.errors import DataError
from shared.data.sources import READERS

# Totals of the three files, summed by awk from the files as they lie.
OSD = {99: 989_860_858.3, 104: 732_775_583.8, 105: 672_590_507.5}


@pytest.mark.parametrize(
    ("name", "condition", "tissue", "mouse"),
    [
        ("Mmus_C57-6J_LVR_GC_C_Rep5_M40", "ground", "liver", "M40"),
        ("Mmus_BAL-TAL_LRTN_BSL_Rep1_B7", "basal", "left retina", "B7"),
        ("Mmus_C57-6J_LVR_RR1_FLT_wERCC_Rep1_M25", "flight", "liver", "M25"),
        ("RR23_KDN_VIV_V1", "vivarium", "kidney", "V1"),
    ],
)
def test_names_of_other_missions(tmp_path, name, condition, tissue, mouse):
    path = write(
        tmp_path / "GLDS-1_rna_seq_Unnormalized_Counts.csv", [f',"{name}","{name}x"', "ENSMUSG1,1,2", "ENSMUSG2,3,4"]
    )
    row = READERS["genelab"]([path]).obs.iloc[0]
    assert (row["condition"], row["tissue"], row["donor"]) == (condition, tissue, mouse)


@pytest.mark.parametrize("name", ["Mmus_C57-6J_TA_Rep1_M23", "Mmus_TA_FLT_GC_M23", "Mmus_C57-6J_TA_FLT", "M23"])
def test_a_sample_that_does_not_say_its_condition_is_refused(tmp_path, name):
    path = write(tmp_path / "GLDS-1_rna_seq_Unnormalized_Counts.csv", [f',"{name}"', "ENSMUSG1,1", "ENSMUSG2,3"])
    with pytest.raises(DataError, match="does not say its condition"):
        READERS["genelab"]([path])


def test_spike_ins_are_told(tmp_path):
    found = read(CASES["genelab"](tmp_path), tissue="muscle")
    assert list(found.var["spike_in"]) == [False] * 8 + [True]
    assert set(found.obs["tissue"]) == {"muscle"}


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
