"""BERMUDA beside a loop that works as the published one does, in turns, and the memory of the vote of neighbours.

The loop was written from a description of the published method: a data loader for each cluster, a pass through the
network for each, the discrepancy of each pair from its own three kernels, and a new Adam for every epoch. It and the
package train the same network on the same clusters with the same pairs, on one thread; times are seconds of the
processor, so that what else the machine does counts for little.

The floor of an epoch is what no such training can leave out: the four linear layers both ways on as many rows, and
Adam. Measured once on a machine that did other work too: 1.66 times as many epochs a second with two batches, at 1.18
times the floor, and 2.88 times as many with eight, at 1.27 times it. Set ``BORROWED_BENCHMARKS=1`` for the timings.
"""

import itertools
import multiprocessing
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from shared.methods.bermuda import WIDTHS, Autoencoder, ClusterBatches, bermuda_step
from shared.nn.losses import ramp

timed = pytest.mark.skipif(
    not os.environ.get("BORROWED_BENCHMARKS"), reason="timings are for a quiet machine: set BORROWED_BENCHMARKS=1"
)
SHARES = (0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05)  # of the clusters of a batch


def problem(n_batches, n_cells, n_genes, seed=0):
    """Scaled cells, their clusters, the batch of each cluster, and pairs of the same types in each two batches."""
    rng, k = np.random.default_rng(seed), len(SHARES)
    centres = rng.random((k, n_genes), dtype=np.float32)
    kind = np.concatenate([rng.permutation(np.repeat(range(k), (np.array(SHARES) * n_cells).astype(int)))] * n_batches)
    batch = np.repeat(np.arange(n_batches), len(kind) // n_batches)
    X = (0.6 * centres[kind] + 0.4 * rng.random((len(kind), n_genes), dtype=np.float32)).astype(np.float32)
    found = [(a * k + t, b * k + t) for a, b in itertools.combinations(range(n_batches), 2) for t in range(k)]
    return X, batch * k + kind, np.repeat(np.arange(n_batches), k), np.array(found).T


def kernel(a, b):
    """Mean over all pairs of rows of the sum of Gaussian kernels."""
    apart = ((a[:, None] - b[None]) ** 2).sum(2)
    return sum(torch.exp(-apart / (2 * w**2)) for w in WIDTHS).mean()


def plain(net, X, clusters, homes, pairs, epochs, batch_size=50, lr=1e-3, lr_step=200, weight=1.0, seed=0):
    """Train as the published code does; one dict of losses an epoch."""
    torch.manual_seed(seed)
    rng, rows = np.random.default_rng(seed), [np.flatnonzero(clusters == c) for c in range(len(homes))]
    sizes = np.array(list(map(len, rows)))
    rows = [np.append(r, rng.choice(r, sizes[homes == h].max() - len(r))) for r, h in zip(rows, homes, strict=True)]
    tables = [
        torch.utils.data.TensorDataset(torch.from_numpy(X[r]), torch.full((len(r),), c)) for c, r in enumerate(rows)
    ]
    loaders = [torch.utils.data.DataLoader(t, batch_size, shuffle=True, drop_last=True) for t in tables]
    history = []
    for epoch in range(1, epochs + 1):
        rate = lr * 0.5 ** (epoch // lr_step)
        optimizer = torch.optim.Adam(net.parameters(), lr=rate, weight_decay=5e-5)
        gamma, seen = weight * ramp(epoch / epochs), []
        running = [iter(loader) for loader in loaders]
        for i in range(max(map(len, loaders))):
            codes, reconstruction = [], 0.0
            for c, loader in enumerate(loaders):
                if i % len(loader) == 0:
                    running[c] = iter(loader)
                x, _ = next(running[c])
                code = net.encode(x)
                reconstruction = reconstruction + torch.nn.functional.mse_loss(net.decode(code), x)
                codes.append(code)
            transfer = torch.zeros(())
            for a, b in pairs.T.tolist():
                one, other = codes[a], codes[b]
                transfer = transfer + kernel(one, one) + kernel(other, other) - 2 * kernel(one, other)
            loss = reconstruction + gamma * transfer
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append([float(loss.detach()), float(reconstruction.detach()), float(transfer.detach())])
        history.append(dict(zip(("loss", "reconstruction", "transfer"), np.mean(seen, 0), strict=True)))
    return history


def packaged(net, X, clusters, homes, pairs, epochs, batch_size=50, seed=0, original=True, lr_step=200):
    """The package's training of the same problem."""
    from functools import partial

    from shared.methods.bermuda import EpochReset
    from shared.train import Config, fit

    how = {"epochs": epochs, "weight": 1.0, "homes": homes if original else None}
    batches = ClusterBatches(X, clusters, pairs, np.ones(pairs.shape[1]), batch_size, seed, **how)
    config = Config(epochs=epochs, optimizer="adam", weight_decay=5e-5, lr_step=lr_step, seed=seed, device="cpu")
    step = partial(bermuda_step, summed=True)
    return fit(net, step, batches, config, on_optimizer=EpochReset(batches) if original else None).rows


def floor(net, X, clusters, homes, batch_size=50):
    """The linear layers both ways on the rows of one epoch, and Adam."""
    sizes = np.bincount(clusters)
    steps, x = sizes.max() // batch_size, torch.from_numpy(X[: len(homes) * batch_size])
    shapes = [p.shape for p in net.parameters() if p.ndim == 2]
    rows = [x, *(torch.rand(len(x), out) for out, _ in shapes)]
    weights, optimizer = [p for p in net.parameters() if p.ndim == 2], torch.optim.Adam(net.parameters(), fused=True)
    for _ in range(steps):
        for i, w in enumerate(weights):
            rows[i] @ w.detach().T
        for i, w in enumerate(weights):
            w.grad = rows[i + 1].T @ rows[i]
            if i:
                rows[i + 1] @ w.detach()
        optimizer.step()


def network(X, seed=0):
    torch.manual_seed(seed)
    return Autoencoder(X.shape[1])


def test_the_plain_loop_and_the_package_train_alike():
    """From the same weights, with draws of their own, losses over all epochs are within a few hundredths."""
    X, clusters, homes, pairs = problem(2, 400, 60)
    found = [run(network(X), X, clusters, homes, pairs, 12, 20) for run in (plain, packaged)]
    for part in ("loss", "reconstruction", "transfer"):
        theirs, ours = (np.array([row[part] for row in rows]) for rows in found)
        assert abs(ours.mean() / theirs.mean() - 1) < 0.05, part


def seconds(run):
    start = time.process_time()
    run()
    return time.process_time() - start


@timed
@pytest.mark.parametrize(("n_batches", "least"), [(2, 1.5), (8, 2.5)])
def test_epochs_a_second(n_batches, least):
    torch.set_num_threads(1)
    X, clusters, homes, pairs = problem(n_batches, 2000, 2500)
    took = {"plain": [], "packaged": [], "floor": []}
    nets = {name: network(X) for name in took}
    for _ in range(3):
        took["plain"].append(seconds(lambda: plain(nets["plain"], X, clusters, homes, pairs, 1)))
        took["packaged"].append(seconds(lambda: packaged(nets["packaged"], X, clusters, homes, pairs, 1)))
        took["floor"].append(seconds(lambda: floor(nets["floor"], X, clusters, homes)))
    plain_s, ours, under = (float(np.median(took[name])) for name in ("plain", "packaged", "floor"))
    print(
        f"\n{n_batches} batches: plain {plain_s:.2f} s an epoch, package {ours:.2f}, ratio {plain_s / ours:.2f}; ",
        end="",
    )
    print(f"floor {under:.2f} s, package {ours / under:.2f} times that")
    assert plain_s / ours >= least or ours <= 1.1 * under


@timed
def test_a_whole_fit_at_equal_scores():
    """The published 2000 epochs by the plain loop, and the package's defaults, which stop after 500, on the same pairs.

    No label is looked at to stop. Scores are 0.4 of mixing and 0.6 of types. The bound was written first. With 200
    epochs, the default at that time, the package's scores on seeds 0 and 1 were 0.911 and 0.918, and the loop's 0.941
    and 0.940. So 500 became the default, after a look at seed 0, and other seeds are the judge.
    """
    from shared.data import simulate
    from shared.evaluate import integration_scores
    from shared.methods.bermuda import Bermuda, scaled
    from shared.preprocess import log_normalize

    torch.set_num_threads(1)
    took, scores = {"plain": [], "packaged": []}, {"plain": [], "packaged": []}
    for seed in (10, 11):
        cells = simulate.cells(600, 200, labels=5, n_batches=2, location=0.4, gene_specific=0.5, seed=seed)
        cells = log_normalize(cells)
        batch, types = cells.obs["batch"].to_numpy(), cells.obs["cell_type"].to_numpy()
        model, found = Bermuda(device="cpu", random_state=seed), []
        took["packaged"].append(seconds(lambda m=model, c=cells, f=found: f.append(m.fit_transform(c, batch="batch"))))
        codes = {"packaged": found[0]}
        of_cell = np.unique(batch, return_inverse=True)[1]
        X = scaled(cells.X, of_cell, model.scale_["low"], model.scale_["high"])
        net, clusters = network(X, seed), (model.clusters_, model.cluster_batch_, model.pairs_)
        # Clusters and pairs are the package's own, so that their time is in the package's alone.
        took["plain"].append(seconds(lambda n=net, x=X, c=clusters: plain(n, x, *c, 2000)))
        with torch.no_grad():
            codes["plain"] = net.encode(torch.from_numpy(X)).numpy()
        for name, code in codes.items():
            scores[name].append(integration_scores(code, batch, types)["total"])
    ratio = sum(took["plain"]) / sum(took["packaged"])
    print(f"\nplain {took['plain']} s, package {took['packaged']} s, ratio {ratio:.1f}; scores {scores}")
    assert ratio >= 4 and np.mean(scores["packaged"]) >= np.mean(scores["plain"]) - 0.01


def peak(answer, ranked, n):
    """MiB that the vote of neighbours takes, with its input."""
    from shared.methods.bermuda import metaneighbor

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    X = rng.random((n, 2000), dtype=np.float32)
    start = time.process_time()
    metaneighbor(X, np.arange(n) % 20, np.arange(n) % 20 // 10, ranked)
    took = time.process_time() - start
    answer.put((int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024, took))


@timed
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("ranked", [False, True])
def test_thirty_thousand_cells_vote_within_two_gigabytes(ranked):
    spawn = multiprocessing.get_context("spawn")
    answer = spawn.Queue()
    child = spawn.Process(target=peak, args=(answer, ranked, 30_000))
    child.start()
    mib, took = answer.get(timeout=1200)
    child.join()
    print(f"\n30,000 cells × 2,000 genes, ranked={ranked}: {mib:.0f} MiB at most, {took:.0f} s")
    assert mib <= 2 * 2**30 / 2**20
