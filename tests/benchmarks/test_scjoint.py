"""scJoint beside a loop that works as the published one does, in turns, and the memory of both.

The loop was written from a description of the published method: a data set whose items are single cells, drawn with
replacement by Python's generator and made dense one by one in double precision, a data loader for each, embeddings
written to text and read again, and scikit-learn's vote with a second search for the neighbours. Both train on one
thread; times are seconds of the processor, so that what else the machine does counts for little.

The floor of stage 1 is what no such training can leave out: the linear layer both ways on dense cells that lie ready,
and the step of the optimiser. Measured on a quiet machine: 3.4 times as many epochs a second in stage 1, at 1.27 times
the floor; a pipeline of 20 and 20 epochs in a third of the time (ratio 3.0). Both processes hold 603 MiB before they
begin, the cells among them; beyond these `fit` takes 116, the cells that are then cut out for `predict` 180 more, and
the plain pipeline 344. The last two of the bounds below, which were written first, are not met: arithmetic alone would
take the pipeline to 4.6, and half the peak is less than both begin with.
Set ``BORROWED_BENCHMARKS=1`` for the timings.
"""

import multiprocessing
import os
import random
import re
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import cross_entropy, normalize

from shared.data import simulate

timed = pytest.mark.skipif(
    not os.environ.get("BORROWED_BENCHMARKS"), reason="timings are for a quiet machine: set BORROWED_BENCHMARKS=1"
)
TOP, BATCH, LR = 0.8, 256, 0.01
EPOCHS = int(os.environ.get("BORROWED_EPOCHS", "20"))


def problem(n_rna, n_atac, n_genes, seed=0):
    """CSR cells and types (numbers) of RNA and of ATAC."""
    cells = simulate.modalities(n_rna, n_atac, n_genes, noise=0.2, seed=seed)
    is_rna, types = (cells.obs["domain"] > 0).to_numpy(), cells.obs["cell_type"].cat.codes.to_numpy().astype(np.int64)
    return cells.X[is_rna], types[is_rna], cells.X[~is_rna], types[~is_rna]


class SingleCells(torch.utils.data.Dataset):
    """One cell at a time, at random whatever index is asked for."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return self.X.shape[0]

    def __getitem__(self, index):
        row = random.randint(0, len(self) - 1)
        x = (self.X[row].todense() > 0).astype(np.float64)
        return np.asarray(x).reshape(-1), self.y[row]


def reduction(E):
    """Covariance, spread and size of one batch of embeddings."""
    centred = E - E.mean(0)
    covariance = torch.triu(centred.T @ centred / (len(E) - 1), diagonal=1)
    return covariance.abs().mean() + 1 / centred.abs().mean() + E.abs().mean()


def pulled(E, y, centres):
    """Distances to all centres, masked to the own type, over all places."""
    apart = (E[:, None] - centres[None]).square().sum(2).sqrt()
    mask = y[:, None] == torch.arange(len(centres))
    return (apart * mask).clamp_min(1e-12).mean()


def epoch_of(loaders):
    """Batches of both data sets for as long as the ATAC cells last."""
    running = [iter(loader) for loader in loaders]
    for i in range(len(loaders[1].dataset) // loaders[1].batch_size):
        for side, loader in enumerate(loaders):
            if i and i % len(loader) == 0:
                running[side] = iter(loader)
        yield [next(it) for it in running]


def plain(rna, types, atac, voted=None, epochs=1, batch=BATCH, seed=0):
    """One stage as the published code trains it: encoder, head, and losses of the epochs."""
    random.seed(seed)
    torch.manual_seed(seed)
    n_types = int(types.max()) + 1
    encoder, head = torch.nn.Linear(rna.shape[1], 64), torch.nn.Linear(64, n_types)
    centres = torch.randn(n_types, 64)
    target = np.zeros(atac.shape[0], np.int64) if voted is None else voted
    tables = SingleCells(rna, types), SingleCells(atac, target)
    loaders = [torch.utils.data.DataLoader(table, batch, shuffle=True) for table in tables]
    optimizers = [torch.optim.SGD(part.parameters(), lr=LR, momentum=0.9) for part in (encoder, head)]
    history = []
    for _ in range(epochs):
        seen = []
        for (x, y), (z, w) in epoch_of(loaders):
            a, b = encoder(x.float()), encoder(z.float())
            nearest = (normalize(b) @ normalize(a).T).max(1).values.topk(int(len(b) * TOP)).values.mean()
            types_loss = cross_entropy(head(a), y)
            l1 = 0.1 * sum(p.abs().mean() for part in (encoder, head) for p in part.parameters())
            loss = reduction(a) + reduction(b) - nearest + types_loss + l1
            if voted is not None:
                loss = loss + cross_entropy(head(b), w) + pulled(a, y, centres) + pulled(b, w, centres)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            seen.append(float(loss.detach()))
        history.append(np.mean(seen))
    return encoder, head, history


def dumped(encoder, head, X, folder, name):
    """Embeddings and probabilities of all cells, written as text number by number, and the embeddings read again."""
    lines = {"embeddings": [], "predictions": []}
    with torch.no_grad():
        for cells in np.split(np.arange(X.shape[0]), range(BATCH, X.shape[0], BATCH)):
            rows = [np.asarray((X[i].todense() > 0).astype(np.float64)).reshape(-1) for i in cells]
            E = encoder(torch.from_numpy(np.stack(rows)).float())
            P = head(E).softmax(1).numpy()
            E = (E / E.norm(dim=1, keepdim=True)).numpy()
            lines["embeddings"] += [" ".join(str(v) for v in row) for row in E]
            lines["predictions"] += [" ".join(str(v) for v in row) for row in P]
    for kind, text in lines.items():
        (folder / f"{name}_{kind}.txt").write_text("\n".join(text))
    return np.loadtxt(folder / f"{name}_embeddings.txt")


def voted_plainly(encoder, head, rna, types, atac, folder):
    """Types of ATAC cells by scikit-learn's vote, and the search for neighbours that the confidence asks for."""
    E = [dumped(encoder, head, X, folder, name) for X, name in ((rna, "rna"), (atac, "atac"))]
    model = KNeighborsClassifier(30).fit(E[0], types)
    model.kneighbors(E[1])
    return model.predict(E[1])


def plain_pipeline(rna, types, atac, folder, epochs):
    """Both stages and both votes."""
    encoder, head, _ = plain(rna, types, atac, epochs=epochs)
    voted = voted_plainly(encoder, head, rna, types, atac, folder)
    encoder, head, _ = plain(rna, types, atac, voted, epochs=epochs)
    return voted_plainly(encoder, head, rna, types, atac, folder)


def packaged(rna, types, atac, epochs=1, batch=BATCH, seed=0, sampling="replacement"):
    """The package's stage 1 on the same cells, with their packing: the network and the losses."""
    from shared.methods.scjoint import JointBatches, JointInput, JointNetwork, scjoint_step
    from shared.train import Config, fit

    torch.manual_seed(seed)
    net = JointNetwork(rna.shape[1], 64, int(types.max()) + 1)
    batches = JointBatches([JointInput(rna), JointInput(atac)], [types], 1, batch, seed, sampling=sampling)
    config = Config(epochs=epochs, optimizer="sgd", lr=LR, seed=seed, device="cpu")
    return net, [row["loss"] for row in fit(net, partial(scjoint_step, top=TOP), batches, config).rows]


def packaged_pipeline(X, types, epochs):
    """The estimator: both stages and both votes, for RNA cells above ATAC cells."""
    from shared.methods.scjoint import PUBLISHED, ScJoint

    model = ScJoint(**PUBLISHED, epochs=epochs, retrain_epochs=epochs, device="cpu", random_state=0)
    n = len(types)
    y = np.r_[types, np.zeros(X.shape[0] - n, np.int64)]
    return model.fit(X, y, np.where(np.arange(X.shape[0]) < n, 1, -1)).predict(X[n:])


def floor(rna, atac, batch=BATCH):
    """The linear layer both ways on dense cells that lie ready, and the optimiser, for one epoch."""
    X = torch.from_numpy(np.concatenate([rna[:batch].toarray(), atac[:batch].toarray()]))
    weight = torch.nn.Parameter(torch.zeros(X.shape[1], 64))
    optimizer, grad = torch.optim.SGD([weight], lr=LR, momentum=0.9), torch.ones(len(X), 64)

    def run():
        for _ in range(atac.shape[0] // batch):
            X @ weight.detach()
            weight.grad = X.T @ grad
            optimizer.step()

    return run


def test_the_plain_loop_and_the_package_train_alike(tmp_path):
    """With draws and weights of their own, losses are within a few hundredths, and so are the types that they give."""
    rna, types, atac, truth = problem(400, 400, 300)
    _, _, theirs = plain(rna, types, atac, epochs=15, batch=50)
    _, ours = packaged(rna, types, atac, epochs=15, batch=50)
    assert np.abs(np.array(ours[5:]) / theirs[5:] - 1).max() < 0.1
    found = (
        plain_pipeline(rna, types, atac, tmp_path, 15),
        packaged_pipeline(sparse.vstack([rna, atac], format="csr"), types, 15),
    )
    assert abs((found[0] == truth).mean() - (found[1] == truth).mean()) < 0.1


def seconds(run):
    start = time.process_time()
    run()
    return time.process_time() - start


@timed
def test_stage_one(n=5000, n_genes=15_463):
    torch.set_num_threads(1)
    rna, types, atac, _ = problem(n, n, n_genes)
    took, under = {"plain": [], "packaged": [], "floor": []}, floor(rna, atac)
    for _ in range(3):
        took["plain"].append(seconds(lambda: plain(rna, types, atac)))
        # Packing the cells is done once for all epochs, and is left out by the difference of two runs.
        one, three = (seconds(lambda e=e: packaged(rna, types, atac, e)) for e in (1, 3))
        took["packaged"].append((three - one) / 2)
        took["floor"].append(seconds(under))
    plain_s, ours, least = (float(np.median(took[name])) for name in took)
    print(f"\nplain {plain_s:.2f} s an epoch, package {ours:.2f}, ratio {plain_s / ours:.2f}; ", end="")
    print(f"floor {least:.2f} s, package {ours / least:.2f} times that; load {os.getloadavg()[0]:.1f}")
    assert plain_s / ours >= 2.5 or ours <= 1.1 * least


def peak(answer, kind, epochs, folder):
    """MiB at the peak and what there was before, seconds, and types, of a whole pipeline in a process of its own."""
    torch.set_num_threads(1)
    files = ("rna", "atac") if kind == "plain" else ("both",)
    X, types = [sparse.load_npz(folder / f"{name}.npz") for name in files], np.load(folder / "types.npy")
    size = lambda: int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024  # noqa: E731
    before, start = size(), time.process_time()
    found = (
        plain_pipeline(X[0], types, X[1], folder, epochs) if kind == "plain" else packaged_pipeline(*X, types, epochs)
    )
    answer.put((size(), before, time.process_time() - start, found))


@timed
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_the_whole_pipeline(tmp_path, n=5000, n_genes=15_463):
    rna, types, atac, truth = problem(n, n, n_genes)
    sparse.save_npz(tmp_path / "rna.npz", rna, compressed=False)
    sparse.save_npz(tmp_path / "atac.npz", atac, compressed=False)
    sparse.save_npz(tmp_path / "both.npz", sparse.vstack([rna, atac], format="csr"), compressed=False)
    np.save(tmp_path / "types.npy", types)
    spawn, found = multiprocessing.get_context("spawn"), {}
    for kind in ("packaged", "plain"):
        answer = spawn.Queue()
        child = spawn.Process(target=peak, args=(answer, kind, EPOCHS, tmp_path))
        child.start()
        most, before, took, names = answer.get(timeout=1200)
        child.join()
        right = float((names == truth).mean())
        found[kind] = most, took, right
        print(f"\n{kind}: {most:.0f} MiB at most, {before:.0f} before; {took:.1f} s; {right:.3f} right", flush=True)
    (least, fast, ours), (most, slow, theirs) = found["packaged"], found["plain"]
    print(f"ratio {slow / fast:.2f}, memory {least / most:.2f}; load {os.getloadavg()[0]:.1f}")
    assert slow / fast >= 4 and least <= most / 2 and abs(ours - theirs) < 0.05
