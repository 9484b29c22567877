"""Streaming beside the machine's own ceiling and a plain reader, each in a fresh process of its own.

A small file always; with ``BORROWED_BENCHMARKS=1`` a million cells, uncompressed and compressed, and the targets.
``BORROWED_BENCHMARK_CELLS`` names another number, ``python tests/benchmarks/test_stream.py TASK FILE`` runs one task.
"""

import contextlib
import importlib
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CELLS = int(os.environ.get("BORROWED_BENCHMARK_CELLS", 1_000_000))
RATE, PEAK_MB = 50_000, 500
full = pytest.mark.skipif(
    not os.environ.get("BORROWED_BENCHMARKS"), reason="timings are for a quiet machine: set BORROWED_BENCHMARKS=1"
)


# Tasks: each goes through a file and returns how many cells it handed over.


def blocks(path, transform=None):
    from shared.data.stream import Stream

    stream = Stream(path, transform=transform)
    batches = stream.batches(256, labels="cell_type")
    total, seen = 0.0, 0
    for X, y, _ in batches:
        assert X.dtype == "float32" and len(X) == len(y)
        total += float(X[0].sum())  # something is done with it
        seen += len(X)
    assert seen == len(stream) and total > 0
    return seen


def normalised(path):
    from shared.preprocess import log_normalize

    return blocks(path, transform=log_normalize)


def statistics(path):
    """Mean and variance of every gene, in one pass."""
    from sklearn.preprocessing import StandardScaler

    from shared.data.stream import Stream

    scaler = StandardScaler(with_mean=False)
    for X, _ in Stream(path).chunks():
        scaler.partial_fit(X)
    return int(scaler.n_samples_seen_)


def ceiling(path):
    """What HDF5 takes to read and unpack the same entries from top to bottom, and nothing else."""
    import h5py

    with h5py.File(path) as f:
        X, starts = f["X"], f["X/indptr"][:]
        for a in range(0, len(starts) - 1, 10_000):
            b = min(a + 10_000, len(starts) - 1)
            X["data"][starts[a] : starts[b]], X["indices"][starts[a] : starts[b]]
    return len(starts) - 1


def random_rows(path):
    """The plain way to a true shuffle: 256 random cells at a time out of a backed AnnData."""
    import anndata as ad
    import numpy as np

    adata = ad.read_h5ad(path, backed="r")
    order = np.random.default_rng(0).permutation(adata.n_obs)[: 256 * 20]
    for at in range(0, len(order), 256):
        adata[np.sort(order[at : at + 256])].to_memory().X.toarray()
    return len(order)


def scdataset_documented(path):
    """scDataset over a backed AnnData, as its documentation shows it: anndata reads each cell by a call of its own."""
    import anndata as ad
    from scdataset import BlockShuffling, scDataset
    from scdataset.transforms import adata_to_mindex

    adata = ad.read_h5ad(path, backed="r")
    batches = scDataset(adata, BlockShuffling(16), 256, fetch_factor=16, fetch_transform=adata_to_mindex, seed=0)
    return sum(len(batch["X"]) for batch in itertools.islice(batches, 400))


def scdataset_slices(path):
    """The same at the block and the buffer of a stream, with a mask that makes anndata read slices."""
    import h5py
    import numpy as np
    from anndata.io import read_elem, sparse_dataset
    from scdataset import BlockShuffling, scDataset

    file = h5py.File(path)
    X, y = sparse_dataset(file["X"]), read_elem(file["obs/cell_type"]).codes.astype(np.int64)

    def fetch(y, rows):
        wanted = np.zeros(len(y), bool)
        wanted[rows] = True
        return X[wanted], y[rows]

    def batch(found, at):
        return found[0][at].toarray(), found[1][at]

    how = {"fetch_factor": 64, "fetch_callback": fetch, "batch_callback": batch, "seed": 0}
    return sum(len(X) for X, _ in scDataset(y, BlockShuffling(64), 256, **how))


def trained(path):
    """A small network learns the types while the cells come."""
    import torch

    from shared.data.stream import Stream
    from shared.preprocess import log_normalize

    torch.set_num_threads(1)
    stream = Stream(path, transform=log_normalize)
    batches = stream.batches(256, labels="cell_type", cells=range(min(len(stream), 200_000)))
    net = torch.nn.Sequential(torch.nn.Linear(stream.shape[1], 128), torch.nn.ReLU(), torch.nn.Linear(128, 64))
    optimizer = torch.optim.Adam(net.parameters())
    for X, y, _ in batches:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(torch.from_numpy(X)), torch.from_numpy(y)).backward()
        optimizer.step()
    return batches.n_cells


SCDATASET = (scdataset_documented, scdataset_slices) if importlib.util.find_spec("scdataset") else ()
TASKS = (blocks, normalised, statistics, ceiling, random_rows, trained, *SCDATASET)
LEARNS = ("shared.preprocess", "torch", "torch.utils.data")
NEEDS = {normalised: LEARNS[:1], statistics: ("sklearn.preprocessing",), trained: LEARNS}
NEEDS |= dict.fromkeys(SCDATASET, ("torch", "scdataset"))


def peak_mb() -> float:
    """Of this process: its own mark where the system tells it, for getrusage may hold that of the parent."""
    import resource

    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)


def uncached(path):
    """Ask the system to forget what it holds of a file, so that it comes from the disk; what it does is its own."""
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measured(task, path, cold=False) -> dict:
    """Cells a second and peak memory of a task in a fresh process."""
    if cold:
        uncached(path)
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__, task.__name__, str(path)]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def made(folder, cells):
    from .large import write_large

    path = folder / "cells.h5ad"
    write_large(path, cells, 2000, depth=180)
    return path


def packed(path, how):
    """A copy whose matrix is compressed, in chunks of about a hundred cells."""
    import h5py

    found = shutil.copy(path, path.with_name(f"{how}.h5ad"))
    with h5py.File(found, "a") as f:
        for name in ("data", "indices"):
            values = f["X"].pop(name)[:]
            f["X"].create_dataset(name, data=values, chunks=(16_384,), compression=how)
    return found


@pytest.fixture(scope="module")
def million(tmp_path_factory):
    paths = {"none": made(tmp_path_factory.mktemp("million"), CELLS)}
    paths |= {how: packed(paths["none"], how) for how in ("lzf", "gzip")}
    yield paths
    for p in paths.values():
        p.unlink()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return made(tmp_path_factory.mktemp("small"), 6000)


@pytest.mark.parametrize("task", [blocks, statistics], ids=lambda t: t.__name__)
def test_a_small_file(small, task):
    found = measured(task, small)
    assert found["cells"] == 6000 and found["peak_mb"] < PEAK_MB


@pytest.mark.skipif(not SCDATASET, reason="the comparison needs scDataset: pip install scdataset")
def test_scdataset_hands_over_the_same_cells(small):
    assert all(measured(task, small)["cells"] == 6000 for task in SCDATASET)


@full
@pytest.mark.parametrize("how", ["none", "lzf", "gzip"])
def test_a_million_cells(million, how):
    path = million[how]
    found = {t.__name__: measured(t, path) for t in TASKS}
    disk = found["from disk"] = measured(blocks, path, cold=True)
    print(f"\n{how}: {path.stat().st_size / 1e9:.2f} GB; cells a second, and a second of processor time; MB")
    for name, told in found.items():
        print(f"{name:16} {told['rate']:9,.0f} {told['of_processor']:9,.0f} {told['peak_mb']:5.0f}", flush=True)
    plain, top = (disk["rate"] / found[k]["rate"] for k in ("random_rows", "ceiling"))
    print(f"from disk: {plain:.0f} times random rows, {top:.0%} of the ceiling")
    assert disk["cells"] == CELLS and disk["rate"] >= RATE and plain > 10
    assert all(found[k]["peak_mb"] < PEAK_MB for k in ("blocks", "normalised", "statistics"))


if __name__ == "__main__":
    chosen = {t.__name__: t for t in TASKS}[sys.argv[1]]
    # Importing is not what is measured.
    for module in ("anndata", "h5py", "shared.data.stream.stream", *NEEDS.get(chosen, ())):
        importlib.import_module(module)
    start, used = time.perf_counter(), time.process_time()
    cells = chosen(sys.argv[2])
    seconds, used = time.perf_counter() - start, time.process_time() - used
    # Cells per second of processor time tell what a busy machine would have done alone.
    told = {"cells": cells, "rate": cells / seconds, "of_processor": cells / used, "peak_mb": peak_mb()}
    print(json.dumps(told))
