"""BERMUDA: clusters, votes against a quadratic reference, pairs, the step, batches, and what is fitted."""

import importlib.util
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import roc_auc_score
from torch.nn.functional import mse_loss

from shared.data import simulate
from shared.data.constraints import SettingError
from shared.data.errors import DataError, DataWarning
from shared.evaluate import ari, divergence, graph_connectivity, lisi, silhouette, specific_entropy
from shared.methods.bermuda import (
    PUBLISHED,
    Autoencoder,
    Bermuda,
    ClusterBatches,
    EpochReset,
    bermuda_step,
    cluster_pairs,
    find_clusters,
    metaneighbor,
    neighbour_graph,
    oversampled,
    scaled,
)
from shared.nn.losses import mmd2, paired_mmd2
from shared.preprocess import log_normalize
from shared.train import Config, fit


@pytest.fixture(scope="module")
def two():
    """Two batches of four types, 300 cells each."""
    return simulate.gaussian(300, 60, seed=2)


@pytest.fixture(scope="module")
def model(two):
    return Bermuda((32, 8), epochs=40, lr_step=20, lr=3e-3, device="cpu", random_state=0).fit(two, batch="batch")


def batch_codes(cells):
    return cells.obs["batch"].cat.codes.to_numpy().astype(np.int64)


# Clusters.


def test_planted_types_are_found(two):
    for b in (0, 1):
        rows = batch_codes(two) == b
        found = find_clusters(two.X[rows], seed=1)
        assert ari(two.obs["cell_type"][rows], found) > 0.9
        sizes = np.bincount(found)
        assert (np.diff(sizes) <= 0).all() and np.array_equal(found, find_clusters(two.X[rows], seed=1))
        assert len(set(find_clusters(two.X[rows], resolution=3.0))) > len(sizes)


def test_edges_weigh_as_the_neighbours_that_both_share():
    X = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    graph = neighbour_graph(X, k=5).toarray()
    Z = (X - X.mean(0)) / X.std(0)
    far = ((Z[:, None] - Z) ** 2).sum(2)
    near = [set(np.argsort(row)[:6]) for row in far]  # each cell is its own nearest
    wanted = np.zeros((30, 30))
    for i in range(30):
        for j in range(30):
            if i != j and (j in near[i] or i in near[j]):
                wanted[i, j] = len(near[i] & near[j]) / len(near[i] | near[j])
    assert np.allclose(graph, wanted)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_few_cells_are_clustered(n):
    assert len(find_clusters(np.random.default_rng(0).random((n, 5), dtype=np.float32))) == n


def test_leiden_finds_them_too(two):
    pytest.importorskip("igraph", reason="igraph is GPL: install the extra leiden")
    pytest.importorskip("scanpy", reason="install the extra leiden")
    rows = batch_codes(two) == 0
    assert ari(two.obs["cell_type"][rows], find_clusters(two.X[rows], method="leiden")) > 0.9


def test_leiden_that_is_not_installed_names_the_extra(two, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"borrowed-strength\[leiden\]"):
        Bermuda(clustering="leiden").fit(two, batch="batch")


# The vote of neighbours.


def quadratic(X, clusters, batch, ranked):
    """MetaNeighbor by its definition, on the whole matrix of cells by cells."""
    W = spearmanr(X, axis=1).statistic
    W = rankdata(W).reshape(W.shape) / W.size if ranked else 1 + W
    votes = np.stack([W[:, clusters == c].sum(1) for c in range(clusters.max() + 1)], 1) / W.sum(1, keepdims=True)
    A = np.zeros((votes.shape[1],) * 2)
    for i in range(len(A)):
        rows = batch == batch[clusters == i][0]
        A[i] = [roc_auc_score(clusters[rows] == i, votes[rows, j]) for j in range(len(A))]
        A[i, np.unique(clusters[rows])] = 0
    return (A + A.T) / 2


@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_votes_are_those_of_the_quadratic_form(ranked, seed, monkeypatch):
    rng = np.random.default_rng(seed)
    X = rng.gamma(0.5, 2, size=(6, 50))[np.arange(120) % 6] + rng.gamma(2.0, 1.0, size=(120, 50))
    clusters, batch = np.where(np.arange(120) < 60, 0, 6) + np.arange(120) % 6, np.arange(120) // 60
    monkeypatch.setattr("shared.methods.bermuda.similarity.ENTRIES", 1000)  # many blocks
    wanted = quadratic(X, clusters, batch, ranked)
    assert np.abs(metaneighbor(X, clusters, batch, ranked) - wanted).max() < 1e-6
    assert np.abs(metaneighbor(sparse.csr_matrix(X), clusters, batch, ranked) - wanted).max() < 1e-6
    order = rng.permutation(120)
    shuffled = metaneighbor(X[order], clusters[order], np.array(["a", "b"])[batch][order], ranked)
    assert np.abs(shuffled - wanted).max() < 1e-6, "neither the order of cells nor the names of batches matter"


def test_two_six_cell_batches_by_hand():
    """Types are opposite orders of three genes: the own type wins every comparison, the other none."""
    X = np.tile([[1, 2, 3], [3, 2, 1]], (6, 1)).astype(float)
    clusters, batch = np.tile([0, 1], 6) + np.repeat([0, 2], 6), np.repeat([0, 1], 6)
    assert np.array_equal(metaneighbor(X, clusters, batch), np.kron([[0, 1], [1, 0]], np.eye(2)))


def test_a_batch_of_one_cluster_is_told_from_nothing():
    X = np.tile([[1, 2, 3], [3, 2, 1]], (6, 1)).astype(float)
    clusters, batch = np.r_[np.tile([0, 1], 3), np.full(6, 2)], np.repeat([0, 1], 6)
    A = metaneighbor(X, clusters, batch)
    assert np.isfinite(A).all() and A[0, 1] == 0 and A[0, 2] == A[2, 0], "the direction that there is"
    assert (metaneighbor(X, np.repeat([0, 1], 6), batch) == 0).all(), "neither direction"


def test_what_cannot_be_voted_on_is_refused():
    X = np.random.default_rng(0).random((6, 4))
    with pytest.raises(DataError, match="two batches"):
        metaneighbor(X, [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1])
    with pytest.raises(DataError, match="without gaps"):
        metaneighbor(X, [0, 0, 0, 2, 2, 2], [0, 0, 0, 1, 1, 1])
    with pytest.raises(DataError, match="one of each a cell"):
        metaneighbor(X, [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1])


# Pairs.

CHAIN = np.zeros((5, 5))  # clusters 0, 1 of one batch, 2, 3, 4 of another
CHAIN[:2, 2:] = [[0.99, 0.95, 0.2], [0.3, 0.97, 0.86]]
CHAIN += CHAIN.T
HOMES = np.array([0, 0, 1, 1, 1])


def test_either_best_is_a_pair_and_makes_chains():
    """Pitfall 7: one cluster with several, and both with mutual partners only where that is asked for."""
    assert cluster_pairs(CHAIN, HOMES).T.tolist() == [[0, 2], [1, 3], [1, 4]]
    assert cluster_pairs(CHAIN, HOMES, 0.9).T.tolist() == [[0, 2], [1, 3]]
    assert cluster_pairs(CHAIN, HOMES, mutual=True).T.tolist() == [[0, 2], [1, 3]]
    chained = CHAIN.copy()
    chained[0, 2] = chained[2, 0] = 0.94  # now 0 likes 3 best, which likes 1, and 2 still likes 0
    assert cluster_pairs(chained, HOMES).T.tolist() == [[0, 2], [0, 3], [1, 3], [1, 4]]
    assert cluster_pairs(chained, HOMES, mutual=True).T.tolist() == [[1, 3]]
    assert cluster_pairs(CHAIN, HOMES, 1.0).shape == (2, 0)


def test_zeros_and_the_order_of_clusters_do_not_matter():
    """The published code tells batches by zeros beside the diagonal; here a zero across batches is a value."""
    matrix = CHAIN.copy()
    matrix[1, 2] = matrix[2, 1] = 0
    order = [3, 0, 4, 1, 2]
    found = cluster_pairs(matrix[np.ix_(order, order)], HOMES[order])
    assert {frozenset(order[i] for i in pair) for pair in found.T} == {frozenset(p) for p in ((0, 2), (1, 3), (1, 4))}


def test_three_batches_are_matched_two_by_two():
    """Pitfall 11: nothing changes with more batches."""
    types, homes = np.tile([0, 1, 2], 3), np.repeat([0, 1, 2], 3)
    alike = np.where(types[:, None] == types, 0.95, 0.4) * (homes[:, None] != homes)
    pairs = cluster_pairs(alike, homes)
    assert pairs.shape == (2, 9) and (types[pairs[0]] == types[pairs[1]]).all() and (pairs[0] < pairs[1]).all()


def test_planted_types_are_paired(two):
    codes = batch_codes(two)
    clusters = codes * 4 + two.obs["cell_type"].cat.codes.to_numpy()
    pairs = cluster_pairs(metaneighbor(two.X, clusters, codes), np.repeat([0, 1], 4))
    assert pairs.T.tolist() == [[i, i + 4] for i in range(4)]


# The loss and its step.


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Autoencoder(12, (6, 3)).double()


PAIRS = torch.tensor([[0, 0, 1], [2, 3, 3]])


@pytest.fixture
def X():
    return torch.rand(4, 7, 12, dtype=torch.double, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("summed", [False, True])
def test_one_pass_is_what_passes_cluster_by_cluster_are(net, X, summed):
    alike, widths = torch.tensor([0.9, 0.95, 1.0], dtype=torch.double), (0.5, 2.0)
    loss, parts = bermuda_step(net, X, PAIRS, alike, 1.7, widths, summed)
    codes = [net.encode(x) for x in X]
    errors = [mse_loss(net.decode(z), x) for z, x in zip(codes, X, strict=True)]
    apart = [mmd2(codes[i], codes[j], widths) for i, j in PAIRS.T.tolist()]
    if summed:
        wanted = sum(errors), 2 * sum(w * d for w, d in zip(alike, apart, strict=True))
    else:
        wanted = sum(errors) / 4, sum(w * d for w, d in zip(alike, apart, strict=True)) / alike.sum()
    whole = wanted[0] + 1.7 * wanted[1]
    assert torch.allclose(torch.stack([loss, *parts.values()]), torch.stack([whole, *wanted]), rtol=1e-9)
    found = torch.autograd.grad(loss, net.parameters())
    for a, b in zip(found, torch.autograd.grad(whole, net.parameters()), strict=True):
        assert torch.allclose(a, b, atol=1e-9)


def test_the_gradient_is_that_of_the_loss(net, X):
    names = [name for name, _ in net.named_parameters()]

    def loss(*weights):
        class Given:
            encode = staticmethod(lambda x: call("encode", x))
            decode = staticmethod(lambda z: call("decode", z))

        def call(part, x):
            own = {n.removeprefix(part + "."): w for n, w in zip(names, weights, strict=True) if n.startswith(part)}
            return torch.func.functional_call(getattr(net, part), own, (x,))

        return bermuda_step(Given, X, PAIRS, torch.ones(3, dtype=torch.double), 0.8)[0]

    assert torch.autograd.gradcheck(loss, tuple(p.detach().clone().requires_grad_() for p in net.parameters()))


def test_the_discrepancy_of_points_at_a_distance_is_the_closed_form():
    samples, pairs, widths = torch.zeros(2, 50, 20, dtype=torch.double), torch.tensor([[0], [1]]), (1, 2, 4, 8, 16)
    samples[1, :, 0] = 3.0
    wanted = 2 * sum(1 - math.exp(-9 / (2 * s**2)) for s in widths)  # summed over kernels, as published
    assert 5 * float(paired_mmd2(samples, pairs, widths)) == pytest.approx(wanted, rel=1e-12)
    assert float(paired_mmd2(samples, torch.zeros(2, 1, dtype=torch.long), widths)) == pytest.approx(0, abs=1e-12)


def test_no_pair_is_plain_reconstruction(net, X):
    loss, parts = bermuda_step(net, X, torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, dtype=torch.double))
    assert torch.equal(loss, parts["reconstruction"]) and not parts["transfer"].detach().any()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_the_network_is_the_papers():
    net = Autoencoder(40)
    shapes = [tuple(p.shape) for p in net.parameters() if p.ndim == 2]
    assert shapes == [(200, 40), (20, 200), (200, 20), (40, 200)]
    assert all((p == 0.01).all() for p in net.parameters() if p.ndim == 1)
    bound = math.sqrt(6 / 240)
    assert 0.95 * bound < float(net.encode[0].weight.detach().abs().max()) <= bound, "Xavier's uniform"
    code, out = net.encode(torch.rand(99, 40)), net(torch.rand(99, 40))
    assert float(code.detach().min()) < 0 <= float(out.detach().min()), "the code is linear, the output is not negative"


# Batches and schedules.


def made_batches(sizes, homes=None, batch_size=5, **how):
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    X = np.arange(len(clusters), dtype=np.float32)[:, None]
    return clusters, ClusterBatches(X, clusters, [[0], [1]], [1.0], batch_size, 3, **{"epochs": 10} | how, homes=homes)


def drawn(batches, epoch):
    """Rows of an epoch: clusters × draws."""
    return torch.cat([X[:, :, 0] for X, *_ in batches(epoch)], 1).numpy().astype(int)


def test_no_cell_comes_again_before_all_others_have():
    """Pitfalls 2 to 4: all cells are seen in an epoch, small clusters evenly, in one shuffle after another."""
    sizes = (23, 9, 3, 1)
    clusters, batches = made_batches(sizes)
    rows = drawn(batches, 1)
    assert batches.steps == 5 and rows.shape == (4, 25)
    for c, own in enumerate(rows):
        assert (clusters[own] == c).all()
        for start in range(0, 25 - sizes[c] + 1, sizes[c]):
            assert len(set(own[start : start + sizes[c]])) == sizes[c]
    assert np.array_equal(rows, drawn(batches, 1)) and not np.array_equal(rows, drawn(batches, 2))


def test_the_published_draw():
    """Clusters are brought to the size of the largest of their batch, and an epoch leaves out what is left over."""
    sizes, homes = (23, 9, 12, 5), np.array([0, 0, 1, 1])
    clusters, batches = made_batches(sizes, homes)
    pools = oversampled([np.flatnonzero(clusters == c) for c in range(4)], homes)
    assert [len(p) for p in pools] == [23, 23, 12, 12]
    assert all(set(np.flatnonzero(clusters == c)) == set(p) for c, p in enumerate(pools)), "no cell is lost"
    rows = drawn(batches, 1)
    assert batches.steps == 4 and rows.shape == (4, 20)
    assert len(set(rows[0])) < 20 and len(set(rows[0][5:])) == 15, "the first batch is of a shuffle of its own"
    assert {*rows[2]} <= {*pools[2]} and len(set(rows[2][5:15])) == 10, "12 cells give two whole batches a pass"


def test_the_weight_rises_and_the_learning_rate_falls_as_published():
    """Pitfall 5: both go by epochs, which the largest cluster defines."""
    _, batches = made_batches((6, 6), epochs=2000, weight=1.0)
    weights = {e: next(iter(batches(e)))[3] for e in (1, 200, 500, 1000)}
    assert weights == pytest.approx({1: 0.0025, 200: 0.4621, 500: 0.8483, 1000: 0.9866}, abs=5e-5)
    for homes, first in ((None, 201), (np.array([0, 1]), 200)):
        _, batches = made_batches((6, 6), homes)
        rates = [0.5 ** (batches.decayed(e) // 200) for e in (first - 1, first, first + 199, first + 200)]
        assert rates == [1, 0.5, 0.5, 0.25]


def test_adam_forgets_at_each_epoch():
    """As plain torch with a new optimiser for every epoch."""
    torch.manual_seed(0)
    nets = [torch.nn.Linear(1, 1) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    _, batches = made_batches((12, 6))

    def step(net, X, *_):
        return (net(X / 18) - X).square().mean()

    hook = EpochReset(batches)
    config = Config(optimizer="adam", epochs=3, lr=0.1, device="cpu")
    fit(nets[0], step, batches, config, on_optimizer=hook)
    for epoch in (1, 2, 3):
        optimizer = torch.optim.Adam(nets[1].parameters(), lr=0.1)
        for batch in batches(epoch):
            optimizer.zero_grad()
            step(nets[1], *batch).backward()
            optimizer.step()
    assert torch.allclose(nets[0].weight, nets[1].weight, atol=1e-6) and hook.about()


# The whole.


def test_what_is_scaled_by_batch_loses_shift_and_stretch(two):
    """Standardising first, as the published code does, changes nothing; a gene that does not vary is 0."""
    X, codes = two.X.copy(), batch_codes(two)
    X[codes == 0, 0] = 3.0
    low, high = (np.stack([getattr(X[codes == b], end)(0) for b in (0, 1)]) for end in ("min", "max"))
    found = scaled(X, codes, low, high)
    for b in (0, 1):
        own = pd.DataFrame(X[codes == b].astype(float))
        Z = (own - own.mean()) / own.std().replace(0, 1)
        wanted = ((Z - Z.min()) / (Z.max() - Z.min()).replace(0, 1)).to_numpy()
        assert np.allclose(found[codes == b], wanted, atol=1e-5)
    assert (found[codes == 0, 0] == 0).all() and found.min() == 0 and found.max() == 1
    moved = np.where(codes[:, None] == 1, X * 2 + 5, X)
    again = scaled(
        moved, codes, *(np.stack([getattr(moved[codes == b], e)(0) for b in (0, 1)]) for e in ("min", "max"))
    )
    assert np.allclose(found, again, atol=1e-5)


def test_a_planted_batch_effect_is_taken_away():
    """Against the same network whose clusters are not matched, which is scaling and compression alone."""
    cells = simulate.cells(600, 200, labels=4, n_batches=2, location=0.3, gene_specific=0.6, seed=1)
    cells = log_normalize(cells)
    types, batch = cells.obs["cell_type"], cells.obs["batch"]
    how = {"epochs": 60, "lr_step": 20, "lr": 3e-3, "device": "cpu", "random_state": 0}
    matched = Bermuda((32, 8), **how)
    codes = matched.fit_transform(cells, batch="batch")
    alone = Bermuda((32, 8), weight=0.0, **how).fit_transform(cells, batch="batch")
    assert divergence(codes, batch, types) < 0.2 * divergence(alone, batch, types)
    assert np.median(lisi(codes, batch)) > np.median(lisi(alone, batch)) + 0.3
    assert graph_connectivity(codes, types) > 0.9 and silhouette(codes, types) > 0.15, "types stay apart"
    rows = matched.history_.rows
    assert rows[-1]["reconstruction"] < 0.7 * rows[0]["reconstruction"]
    assert {"reconstruction", "transfer", "loss", "lr"} <= rows[0].keys() and len(rows) == 60


def test_what_a_fit_leaves_behind(two, model):
    names = model.batches_[model.cluster_batch_]
    assert list(model.batches_) == ["batch1", "batch2"] and len(model.clusters_) == two.n_obs
    for c, name in enumerate(names):
        assert set(two.obs["batch"][model.clusters_ == c]) == {name}
    assert (names[model.pairs_[0]] != names[model.pairs_[1]]).all()
    assert (model.similarity_[tuple(model.pairs_)] >= model.threshold).all()
    codes = model.transform(two, "batch")
    assert codes.shape == (600, 8) and codes.dtype == np.float32
    assert np.allclose(codes[:3], model.transform(two[:3], "batch"), atol=1e-5), "a cell's code is its own"


def test_a_fit_starts_anew(two, model):
    """Pitfall 12: losses of a second fit do not follow those of the first."""
    before, first = model.history_.frame(), model.transform(two, "batch")
    again = Bermuda(**model.get_params()).fit(two, batch="batch")
    assert np.array_equal(again.fit(two, batch="batch").transform(two, "batch"), first)
    assert len(again.history_.rows) == len(before)


def test_clusters_may_be_given_and_count_within_their_batch(two):
    small = {"epochs": 1, "device": "cpu", "random_state": 0}
    model = Bermuda((8, 2), **small).fit(two, batch="batch", clusters="cell_type")
    assert len(model.cluster_batch_) == 8 and model.pairs_.T.tolist() == [[i, i + 4] for i in range(4)]
    numbers = two.obs["cell_type"].cat.codes.to_numpy()
    other = Bermuda((8, 2), **small).fit(two.X, batch=batch_codes(two), clusters=numbers, genes=two.var_names)
    assert np.array_equal(other.pairs_, model.pairs_)


def test_three_batches(two):
    cells = simulate.gaussian(150, 40, n_batches=3, seed=1)
    model = Bermuda((16, 4), epochs=2, device="cpu", random_state=0).fit(cells, batch="batch", clusters="cell_type")
    assert {(a, b) for a, b in model.cluster_batch_[model.pairs_].T.tolist()} == {(0, 1), (0, 2), (1, 2)}


@pytest.mark.parametrize("what", ["original", "mutual", "widths", "weighted"])
def test_each_option_changes_the_result(two, what):
    """Sums, equal weights, draws and moments of the published code are one option; others have their own."""
    small = {"epochs": 3, "lr_step": 1, "device": "cpu", "random_state": 0, "batch_size": 20, "weight": 1.0}
    plain = Bermuda((8, 2), **small).fit(two, batch="batch", clusters="cell_type")
    if what == "weighted":
        plain.set_params(threshold=0.0).fit(two, batch="batch", clusters="cell_type")
        unlike = plain.similarity_[tuple(plain.pairs_)]
        assert unlike.min() < unlike.max(), "pairs weigh by their similarity"
        return
    changed = {"original": {"original": True}, "mutual": {"mutual": True, "threshold": 0.0}, "widths": {"widths": None}}
    other = Bermuda((8, 2), **small | changed[what]).fit(two, batch="batch", clusters="cell_type")
    if what == "mutual":
        assert (np.bincount(other.pairs_.ravel()) <= 1).all()
        return
    assert not np.array_equal(plain.transform(two, "batch"), other.transform(two, "batch"))
    if what == "original":
        ratio = other.history_.rows[0]["reconstruction"] / plain.history_.rows[0]["reconstruction"]
        assert 5 < ratio < 12, "a sum over eight clusters"  # pitfall 6


def test_the_published_settings_are_taken(two):
    model = Bermuda((8, 2), **PUBLISHED | {"epochs": 1}, device="cpu", random_state=0, batch_size=20)
    assert model.fit(two, batch="batch").history_.rows[0]["epoch"] == 1


def test_shrinking_the_code_gains_nothing_where_kernels_follow_it(net, X):
    pairs, alike = PAIRS, torch.ones(3, dtype=torch.double)
    with torch.no_grad():
        fixed, follows = (bermuda_step(net, X, pairs, alike, widths=w)[1]["transfer"] for w in ((1.0,), None))
        net.encode[-1].weight.mul_(0.1)
        net.encode[-1].bias.mul_(0.1)
        small = [bermuda_step(net, X, pairs, alike, widths=w)[1]["transfer"] for w in ((1.0,), None)]
    assert small[0] < 0.2 * fixed and small[1] == pytest.approx(float(follows), rel=1e-6)


def test_it_stops_when_the_loss_no_longer_falls(two):
    model = Bermuda((8, 2), epochs=300, patience=3, lr_step=3, device="cpu", random_state=0)
    history = model.fit(two, batch="batch", clusters="cell_type").history_
    assert history.stopped == "patience" and len(history.rows) < 300


def test_a_type_that_one_batch_lacks_stays_by_itself_where_pairs_are_mutual():
    """Pitfall 8: a type without partner is reconstructed only; one that another type's cluster takes is drawn in."""
    cells = simulate.gaussian(300, 60, seed=2)
    types, batch = (cells.obs[name].to_numpy(str) for name in ("cell_type", "batch"))
    rows = ~((types == "Alpha") & (batch == "batch2"))
    cells, types, batch = cells[rows].copy(), types[rows], batch[rows]
    entropy = {}
    for mutual in (True, False):
        how = {"epochs": 60, "lr_step": 30, "lr": 3e-3, "weight": 10.0, "device": "cpu", "random_state": 0}
        model = Bermuda((32, 8), mutual=mutual, **how).fit(cells, batch="batch", clusters="cell_type")
        lone = model.clusters_[types == "Alpha"][0]
        assert (lone in model.pairs_) is not mutual, "the best of another type is not its best in return"
        assert np.isin(np.setdiff1d(model.clusters_, lone), model.pairs_).all(), "all others have their partner"
        entropy[mutual] = specific_entropy(model.transform(cells, "batch"), batch, types, k=20)
    assert entropy[True] < 0.1 and entropy[False] > 0.5, entropy


# What is refused, and what is warned of.


def test_batches_that_are_too_small_for_the_published_draw_are_refused(two):
    model = Bermuda((8, 2), original=True, batch_size=400, epochs=1)
    with pytest.raises(DataError, match=r"batch 'batch2' has \d+ cells.*lower batch_size, or set original=False"):
        model.fit(two, batch="batch")
    assert Bermuda((8, 2), batch_size=400, epochs=1, device="cpu").fit(two, batch="batch").history_.rows


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"clustering": "k-means"}, "louvain, leiden"),
        ({"resolution": 0}, "resolution=0"),
        ({"widths": ()}, "widths of kernels"),
        ({"widths": [1.0, -1.0]}, "widths of kernels"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"devices": 2}, "devices=1"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(two, settings, said):
    with pytest.raises(SettingError, match=said):
        Bermuda(**settings).fit(two, batch="batch")


def test_wrong_input_is_refused_with_the_cure(two, model):
    quick = Bermuda((8, 2), epochs=1, device="cpu")
    with pytest.raises(DataError, match="600 cells"):
        quick.fit(two, batch=["a", "b"])
    with pytest.raises(DataError, match="no_such"):
        quick.fit(two, batch="no_such")
    with pytest.raises(DataError, match="names a column of obs"):
        quick.fit(two.X, batch="batch")
    with pytest.raises(DataError, match="no batch"):
        quick.fit(two, batch=pd.Series([None, *["a"] * 599]))
    with pytest.raises(DataError, match="'third' was not fitted"):
        model.transform(two, np.full(600, "third"))
    with pytest.warns(DataWarning, match="pass batch="):
        model.transform(two)
    with pytest.warns(DataWarning, match="all cells are of one batch: pass batch="):
        quick.fit(two)
    noise = np.random.default_rng(0).normal(size=(60, 9))
    with pytest.warns(DataWarning, match=r"the most alike reach 0\.\d+, below threshold=0.99: lower it"):
        quick.set_params(threshold=0.99).fit(noise, batch=np.arange(60) % 2, clusters=np.arange(60) // 2 % 2)
