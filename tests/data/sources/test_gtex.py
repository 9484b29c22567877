"""GTEx: damage by the stated size, and memory for the matrix."""

import tracemalloc

import numpy as np
import pytest
from official_layouts import CASES, HUMAN, read, unpacked, write

from shared.data.errors import DataError
from shared.data.sources import READERS


def test_a_gct_that_is_not_as_large_as_it_says_is_refused(tmp_path):
    case = CASES["gct"](tmp_path)
    lines = unpacked(case.paths[0]).decode().split("\n")[:-1]
    for changed in (lines[:-1], [*lines, lines[-1].replace(HUMAN[0], HUMAN[8])], ["#1.2", "10\t6", *lines[2:]]):
        write(case.paths[0], changed)
        with pytest.raises(DataError, match="says it has"):
            read(case)
    for changed in (
        ["#1.3", *lines[1:]],
        ["#1.2", "9\t7", *lines[2:]],
        ["#1.2", "9", *lines[2:]],
        ["#1.2", *lines[2:]],
    ):
        write(case.paths[0], changed)
        with pytest.raises(DataError):
            read(case)


def test_a_short_row_is_refused(tmp_path):
    case = CASES["gct"](tmp_path)
    lines = unpacked(case.paths[0]).decode().split("\n")[:-1]
    for changed in (lines[4].rsplit("\t", 1)[0], lines[4] + "\t1"):
        write(case.paths[0], [*lines[:4], changed, *lines[5:]])
        with pytest.raises(DataError, match="in row 2 where 8 are due"):
            read(case)


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


def test_memory_is_that_of_the_matrix_and_a_block(tmp_path, monkeypatch):
    """600 samples × 1,500 genes are 3.6 MB as float32 and 7.2 as float64 or text; buffers and a block cost about 4."""
    from shared.data.io import tables

    monkeypatch.setattr(tables, "BLOCK", 20_000)
    READERS["gtex"](wide_gct(tmp_path, 6, 15))  # imports
    paths = wide_gct(tmp_path, 600, 1500)
    tracemalloc.start()
    found = READERS["gtex"](paths)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert found.X.dtype == np.float32 and found.shape == (600, 1500) and peak < 3.6 + 5, peak
