"""Xena: the logarithm is undone, missing and repeated genes of TCGA are named."""

import numpy as np
import pytest
from official_layouts import CASES, read, unpacked, write

from shared.data.errors import DataError
from shared.data.sources import READERS
from shared.data.sources.xena import undone


def test_the_logarithm_is_undone_exactly_at_zero():
    tpm = np.array([0, 0.001, 0.01, 0.53, 1, 12.34, 99_999.9])
    stored = np.round(np.log2(tpm + 0.001), 4)
    found = undone(stored, 2, 0.001)
    assert found[0] == 0.0 and (found[1:] > 0).all()
    assert np.abs(found - tpm).max() / 1e5 < 4e-5 and np.allclose(found, tpm, rtol=4e-5, atol=4e-8)
    assert undone(np.array([np.round(np.log2(0.1), 4)]), 2, 0.1) == 0, "a floor that rounds upwards"
    assert undone(np.array([0.0, 1.0, 3.0]), 2, 1).tolist() == [0.0, 1.0, 7.0]
    assert np.array_equal(undone(np.array([-np.inf, 0.0, 1.0]), 10, 0), [0, 1, 10])
    for wrong in (np.array([-9.9658, 0.0]), np.array([-3.0, 2.0])):
        with pytest.raises(DataError, match="correct base and offset"):
            undone(wrong, 2, 1)


def test_tpm_of_toil_sum_to_a_million(tmp_path):
    """The rounding to four decimals costs parts in a hundred thousand, not in a hundred."""
    rng = np.random.default_rng(0)
    tpm = rng.gamma(0.1, 1, (5000, 3)) * (rng.random((5000, 3)) < 0.5)
    tpm *= 1e6 / tpm.sum(0)
    body = ["\t".join([f"ENSG{i:011d}.1", *(f"{v:.4f}" for v in np.log2(r + 0.001))]) for i, r in enumerate(tpm)]
    path = write(tmp_path / "x.gz", ["sample\tGTEX-1-1\tGTEX-2-1\tTCGA-A-B-01", *body])
    said = write(tmp_path / "y.tsv", ["sample\t_study", "GTEX-1-1\tGTEX", "TCGA-A-B-01\tTCGA"])
    found = READERS["xena"]([path, said], base=2, offset=0.001, units="tpm")
    assert np.allclose(found.X.sum(1, dtype=np.float64), 1e6, rtol=1e-4)
    assert (found.X[tpm.T == 0] == 0).all() and (found.X[tpm.T > 1e-7] > 0).all()
    assert list(found.obs["donor"]) == ["GTEX-1", "GTEX-2", "TCGA-A-B"]


def test_a_wrong_base_is_refused(tmp_path):
    with pytest.raises(DataError, match="correct base and offset"):
        read(CASES["xena_toil"](tmp_path), base=10)


def test_missing_and_repeated_genes_of_tcga(tmp_path):
    case = CASES["xena_tcga"](tmp_path)
    with pytest.raises(DataError, match="no value in some sample for GHRL: missing='drop'"):
        read(case, missing="refuse")
    assert "1 gene without a value" in read(case).uns["notes"][0]
    lines = unpacked(case.paths[0]).decode().split("\n")[:-1]
    write(case.paths[0], [*lines, lines[1]])
    with pytest.raises(DataError, match="more than once"):
        read(case)
    found = read(case, twice="drop")
    assert "INS" not in found.var_names and found.n_vars == 7 and "stands twice (INS)" in found.uns["notes"][1]
