"""GTEx: a part of the samples and genes, damage by the stated size, and memory for what is asked for."""

import tracemalloc

import numpy as np
import pytest
from official_layouts import CASES, HUMAN, SYMBOLS, read, unpacked, write

from shared.data.errors import DataError
from shared.data.sources import READERS


def test_part_of_gtex(tmp_path):
    case = CASES["gct"](tmp_path)
    found = read(case, genes=[HUMAN[2], "ENSG00000000005.5", "INS", "no gene"], tissues=["Lung"])
    assert list(found.var_names) == [HUMAN[0], HUMAN[2], HUMAN[4]] and set(found.obs["tissue"]) == {"Lung"}
    assert np.array_equal(found.X, case.X[[0, 2, 4]][:, [0, 2, 4]].astype(np.float32))
    assert found.uns["notes"] == ["1 gene asked for and not there (no gene)"]
    assert set(read(case, tissues="Brain").obs["tissue"]) == {"Brain - Cortex", "Brain - Amygdala"}
    assert read(case, tissues="Brain - Amygdala").n_obs == 1
    with pytest.raises(DataError, match="no sample of Skin; tissues are Lung"):
        read(case, tissues=["Lung", "Skin"])
    with pytest.raises(DataError, match="none of the genes"):
        read(case, genes=["TP53"])


def test_names_of_gtex(tmp_path):
    case = CASES["gct"](tmp_path)
    assert list(read(case, names="versioned").var_names[[0, 8]]) == ["ENSG00000000001.5", "ENSG00000000001.5_PAR_Y"]
    assert list(read(case, names="symbol").var_names) == SYMBOLS


@pytest.mark.parametrize("part", [{}, {"genes": SYMBOLS}])
def test_a_gct_that_is_not_as_large_as_it_says_is_refused(tmp_path, part):
    case = CASES["gct"](tmp_path)
    lines = unpacked(case.paths[0]).decode().split("\n")[:-1]
    for changed in (lines[:-1], [*lines, lines[-1].replace(HUMAN[0], HUMAN[8])], ["#1.2", "10\t6", *lines[2:]]):
        write(case.paths[0], changed)
        with pytest.raises(DataError, match="says it has"):
            read(case, **part)
    for changed in (
        ["#1.3", *lines[1:]],
        ["#1.2", "9\t7", *lines[2:]],
        ["#1.2", "9", *lines[2:]],
        ["#1.2", *lines[2:]],
    ):
        write(case.paths[0], changed)
        with pytest.raises(DataError):
            read(case, **part)


def test_a_short_row_of_a_sample_nobody_asked_for_is_refused(tmp_path):
    """A parser that is asked for some columns does not look at the others."""
    case = CASES["gct"](tmp_path)
    lines = unpacked(case.paths[0]).decode().split("\n")[:-1]
    for changed in (lines[4].rsplit("\t", 1)[0], lines[4] + "\t1"):
        write(case.paths[0], [*lines[:4], changed, *lines[5:]])
        with pytest.raises(DataError, match="in row 2 where 8 are due"):
            read(case, tissues=["Brain - Amygdala"])


def wide_gct(folder, samples, genes):
    rng = np.random.default_rng(0)
    cells = [f"GTEX-{i:04d}-0126-SM-5GZZ7" for i in range(samples)]
    lines = ["\t".join(f"{v:.4g}" for v in rng.gamma(0.3, 20, samples)) for _ in range(40)]
    body = (f"ENSG{i:011d}.3\tG{i}\t{lines[i % 40]}" for i in range(genes))
    path = write(
        folder / "wide.gct.gz", ["#1.2", f"{genes}\t{samples}", "\t".join(["Name", "Description", *cells]), *body]
    )
    said = [f"{c}\tLung\tLung" if i % 10 == 0 else f"{c}\tSkin\tSkin" for i, c in enumerate(cells)]
    return path, write(folder / "attributes.txt", ["SAMPID\tSMTS\tSMTSD", *said])


def test_memory_is_that_of_what_is_asked_for(tmp_path, monkeypatch):
    """600 samples × 1,500 genes are 3.6 MB as float32 and 7.2 as float64 or text; buffers and a block cost about 4."""
    from shared.data.io import wide

    monkeypatch.setattr(wide, "BLOCK", 20_000)
    paths = wide_gct(tmp_path, 600, 1500)
    READERS["gct"](paths, genes=["G1"])  # imports
    peaks = {}
    for name, part in (
        ("all", {}),
        ("lungs", {"tissues": "Lung"}),
        ("genes", {"genes": [f"G{i}" for i in range(100)]}),
    ):
        tracemalloc.start()
        found = READERS["gct"](paths, **part)
        peaks[name] = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        assert found.X.dtype == np.float32
    assert peaks["all"] < 3.6 + 5, peaks
    assert peaks["lungs"] < 0.36 + 5 and peaks["genes"] < 0.24 + 5, peaks
