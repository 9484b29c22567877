"""scJoint: its losses against values worked out by hand, votes, batches, and what is fitted."""

import os

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import cross_entropy

from shared.data import load, simulate
from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.methods.scjoint import (
    PUBLISHED,
    JointBatches,
    JointInput,
    JointNetwork,
    ScJoint,
    binarized,
    centre_loss,
    gene_activity,
    nearest_labelled,
    overlaps,
    published_confidence,
    published_reference,
    reduction_loss,
    scjoint_step,
    similarity_loss,
    types_loss,
    unit_length,
    vote_shares,
)
from shared.train import Config, TrainingError, fit

QUICK = {"batch_size": 32, "epochs": 15, "retrain_epochs": 10, "device": "cpu", "random_state": 0}


@pytest.fixture(scope="module")
def pair():
    """RNA and ATAC of four types, of which RNA lacks none."""
    shares = {"a": 3, "b": 3, "c": 2, "d": 2}
    return simulate.modalities(300, 300, 1000, proportions=shares, swapped=0.1, noise=0.2, seed=3)


@pytest.fixture(scope="module")
def model(pair):
    return ScJoint(**QUICK).fit(pair, sample_domain="domain")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def right(cells, names):
    return float((np.asarray(cells.obs["cell_type"]) == names).mean())


def atac(pair):
    return pair[(pair.obs["domain"] < 0).to_numpy()]


# Losses.


def test_shapes_of_a_batch(monkeypatch):
    """256 cells of each data set give embeddings of 64 features, cosines with all source cells, and 204 maxima."""
    seen, net = {}, JointNetwork(100, 64, 7)
    X = (normal(3, 256, 100) > 1).float()
    E = net.encode(X)
    assert E.shape == (3, 256, 64) and net.head(E).shape == (3, 256, 7)
    topk = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda t, k, **how: seen.update(k=k, shape=t.shape) or topk(t, k, **how))
    similarity_loss(E[:2], E[2:])
    assert seen == {"k": 204, "shape": (1, 256)}


def test_features_that_do_not_vary_together_cost_nothing():
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)  # uncorrelated exactly
    spread = corners.abs().mean()
    assert reduction_loss(corners[None]) == pytest.approx(float(1 / spread + spread))


def test_covariances_of_one_cost_their_number_over_all_entries():
    one = normal(500, 1)
    one = (one - one.mean()) / one.std()
    E = one.expand(500, 64)[None]
    size = E.abs().mean()
    assert reduction_loss(E) == pytest.approx(float(2016 / 4096 + 1 / size + size), rel=1e-4)


def test_reduction_is_the_mean_of_data_sets_and_against_numpy():
    E = normal(2, 40, 5)
    each = []
    for e in E.numpy():
        c = np.cov(e.T)
        each.append(np.abs(np.triu(c, 1)).sum() / 25 + 1 / np.abs(e - e.mean(0)).mean() + np.abs(e).mean())
    assert reduction_loss(E) == pytest.approx(np.mean(each), rel=1e-5)


def test_cells_that_are_all_one_give_no_infinity():
    E = torch.ones(1, 8, 4, requires_grad=True)
    loss = reduction_loss(E)
    loss.backward()
    assert 1e5 < float(loss.detach()) < 1e7 and torch.isfinite(E.grad).all()


def test_the_least_alike_target_cells_are_not_pulled():
    source = torch.eye(4)[None, :2]
    target = torch.tensor(
        [[[2.0, 0, 0, 0], [0, 3, 0, 0], [1, 1, 0, 0], [0, 0, 0, 5], [0, 1, 0, 0]]], requires_grad=True
    )
    loss = similarity_loss(source, target)
    assert float(loss.detach()) == pytest.approx(-(3 + 2**-0.5) / 4)
    loss.backward()
    assert (target.grad[0, 3] == 0).all() and (target.grad[0, 2] != 0).any()
    assert similarity_loss(source, target.detach(), top=1.0) == pytest.approx(-(3 + 2**-0.5) / 5)


def test_any_source_cell_may_be_the_nearest():
    source, target = normal(3, 10, 6), normal(2, 10, 6, seed=1)
    unit = [unit_length(part.reshape(-1, 6).numpy()) for part in (target, source)]
    nearest = (unit[0] @ unit[1].T).max(1).reshape(2, 10)
    assert similarity_loss(source, target) == pytest.approx(-np.sort(nearest, 1)[:, 2:].mean(), rel=1e-5)


def test_one_cell_off_its_centre():
    centres, y = normal(5, 3), torch.tensor([[0, 1, 2, 4]])
    E = centres[y].clone()
    E[0, 2, 1] += 0.75
    E.requires_grad_()
    loss = centre_loss(E, y, centres)
    assert float(loss.detach()) == pytest.approx(0.75 / (4 * 5), rel=1e-4)
    loss.backward()
    assert torch.isfinite(E.grad).all(), "no NaN where the distance is 0"


def test_a_type_without_a_centre_is_an_error():
    with pytest.raises(IndexError):
        centre_loss(normal(1, 2, 3), torch.tensor([[0, 5]]), normal(5, 3))


@pytest.mark.parametrize("trained", [False, True])
def test_fixed_centres_stay_and_trained_ones_move(trained):
    torch.manual_seed(0)
    net = JointNetwork(10, 4, 3, trained)
    before = net.centres.detach().clone()
    X, y = normal(2, 6, 10), torch.arange(12).reshape(2, 6) % 3
    config = Config(epochs=1, optimizer="sgd", lr=0.1, device="cpu")
    fit(net, scjoint_step, lambda epoch: [(X, y, 1)], config)
    assert torch.equal(before, net.centres) is not trained


# The step.


def parts_of(net, X, y, n, **how):
    loss, parts = scjoint_step(net, X, y, n, **how)
    assert float(loss.detach()) == pytest.approx(float(sum(parts.values())), rel=1e-5)
    return {name: float(part) for name, part in parts.items()}


def test_the_step_is_the_sum_of_its_parts():
    torch.manual_seed(0)
    net, X, y = JointNetwork(20, 8, 3), normal(3, 12, 20), torch.arange(36).reshape(3, 12) % 3
    first, third = parts_of(net, X, y[:2], 2), parts_of(net, X, y, 2, centre=4.0)
    assert set(third) - set(first) == {"centre"}
    with torch.no_grad():
        E = net.encode(X)
        assert first["types"] == pytest.approx(
            float(cross_entropy(net(X[:2]).flatten(0, 1), y[:2].flatten())), rel=1e-5
        )
        assert third["types"] == pytest.approx(first["types"] + float(types_loss(net, E[2:], y[2:])), rel=1e-5)
        pulled = centre_loss(E[:2], y[:2], net.centres) + centre_loss(E[2:], y[2:], net.centres)
        assert third["centre"] == pytest.approx(4 * float(pulled), rel=1e-5)
        assert first["reduction"] == pytest.approx(float(reduction_loss(E[:2]) + reduction_loss(E[2:])), rel=1e-5)
        weights = [*net.encode.parameters(), *net.head.parameters()]
        assert first["l1"] == pytest.approx(0.1 * float(sum(w.abs().mean() for w in weights)), rel=1e-5)


def test_without_target_cells_nothing_is_brought_together():
    net, X, y = JointNetwork(20, 8, 3), normal(1, 12, 20), torch.arange(12)[None] % 3
    assert set(parts_of(net, X, y, 1)) == {"reduction", "types", "l1"}


# Cells as the network reads them, and batches.


@pytest.mark.parametrize("n_raw", [0, 3, 20])
def test_genes_are_packed_and_proteins_stay(n_raw):
    X = np.maximum(normal(30, 20).numpy(), 0)
    for form in (X, sparse.csr_matrix(X)):
        part, out = JointInput(form, n_raw), np.empty((4, 20), np.float32)
        part.into(out, np.array([3, 3, 29, 0]))
        expected = np.hstack([X[:, : 20 - n_raw] > 0, X[:, 20 - n_raw :]]).astype(np.float32)
        assert np.array_equal(out, expected[[3, 3, 29, 0]])
        assert np.array_equal(binarized(form, n_raw), expected)
    assert JointInput(X, 0).bits.nbytes == 30 * 3


def batches_of(sampling, seed=0, n=(70, 40)):
    X = [np.arange(count, dtype=np.float32)[:, None] for count in n]
    y = [np.r_[np.zeros(n[0] - 5, np.int64), np.ones(5, np.int64)]]
    return JointBatches([JointInput(x, 1) for x in X], y, 1, 20, seed, sampling=sampling)


def drawn(batches, epoch):
    """Numbers of the cells that were drawn, data sets × cells, and their types."""
    rows = [(X[..., 0].clone().numpy(), y.numpy()) for X, y, _ in batches(epoch)]
    return tuple(np.concatenate(part, 1).astype(int) for part in zip(*rows, strict=True))


@pytest.mark.parametrize("sampling", ["shuffled", "replacement", "balanced"])
def test_draws_come_from_one_seed(sampling):
    (X, y), (again, _), (other, _) = (drawn(batches_of(sampling, s), 3) for s in (0, 0, 1))
    assert np.array_equal(X, again) and not np.array_equal(X, other)
    assert not np.array_equal(X, drawn(batches_of(sampling), 4)[0])
    assert np.array_equal(y[0], X[0] >= 65), "types belong to their cells"
    assert X.shape == (2, 40), "as many batches as fit into the 40 target cells"


def test_sampling():
    assert sorted(drawn(batches_of("shuffled"), 1)[0][1]) == list(range(40)), "each cell once"
    assert len(set(drawn(batches_of("replacement"), 1)[0][1])) < 35, "some twice, some not"
    rare = np.mean([drawn(batches_of("balanced"), e)[1].mean() for e in range(1, 31)])
    assert rare == pytest.approx(0.5, abs=0.05)


def test_small_data_sets_give_whole_batches_too():
    X, _ = drawn(batches_of("shuffled", n=(7, 45)), 1)
    assert X.shape == (2, 40) and set(X[0]) == set(range(7))


# Votes.


def test_votes_are_those_of_sklearn():
    reference, X = normal(80, 6).numpy(), normal(50, 6, seed=1).numpy()
    labels = np.arange(80) % 3
    theirs = KNeighborsClassifier(9).fit(unit_length(reference), labels).predict_proba(unit_length(X))
    shares = vote_shares(reference, labels, X, 9)
    assert np.allclose(shares, theirs, atol=1e-6) and shares.min() >= 0 and np.allclose(shares.sum(1), 1)
    assert np.allclose(shares * 9, np.round(shares * 9), atol=1e-5), "whole votes of nine"


def test_the_published_confidence_says_whether_it_is_the_first_type():
    reference, X = normal(80, 6).numpy(), normal(50, 6, seed=1).numpy()
    labels = np.arange(80) % 3
    predicted = vote_shares(reference, labels, X, 9).argmax(1)
    places, cosine = nearest_labelled(reference, X, 9)
    found = published_confidence(labels, predicted, places, cosine)
    assert ((found > 0) == (predicted == 0)).all() and np.abs(found).max() > 1


def test_the_published_reference_is_cut_by_a_stride():
    assert len(published_reference(60_134)) == 20_045
    assert len(published_reference(30_000)) == 30_000, "the fraction of the stride is dropped"
    assert len(published_reference(100)) == 100


def test_votes_that_cannot_be_counted_are_refused():
    X = normal(8, 3).numpy()
    with pytest.raises(DataError, match="features"):
        vote_shares(X, np.zeros(8, int), X[:, :2])
    with pytest.raises(DataError, match="whole numbers"):
        vote_shares(X, np.zeros(8), X)
    with pytest.raises(DataError, match="whole numbers"):
        vote_shares(X, np.zeros(7, int), X)
    with pytest.raises(SettingError, match="k=0"):
        vote_shares(X, np.zeros(8, int), X, k=0)


# What is fitted.


def test_planted_types_are_found(pair, model):
    cells = atac(pair)
    assert right(cells, model.predict(cells)) > 0.75
    assert right(cells, model.pseudo_labels_) > 0.75
    shuffled = pair.copy()
    shuffled.obs["cell_type"] = np.random.default_rng(0).permutation(np.asarray(pair.obs["cell_type"]))
    control = ScJoint(**QUICK).fit(shuffled, sample_domain="domain").predict(cells)
    assert right(cells, control) < 0.5


def test_embeddings_have_unit_length_and_shares_are_votes(pair, model):
    assert np.allclose(np.linalg.norm(model.transform(pair), axis=1), 1, atol=1e-5)
    shares = model.predict_proba(pair)
    assert np.allclose(shares.sum(1), 1) and np.allclose(shares * 30, np.round(shares * 30), atol=1e-4)
    assert np.array_equal(model.confidence(pair), shares.max(1))
    assert (model.predict(pair) == model.classes_[shares.argmax(1)]).all()


def test_labels_of_target_cells_are_not_looked_at(pair, model):
    y = np.asarray(pair.obs["cell_type"]).astype(object)
    y[(pair.obs["domain"] < 0).to_numpy()] = "?"
    again = ScJoint(**QUICK).fit(pair, y, "domain")
    assert np.array_equal(again.predict_proba(pair), model.predict_proba(pair))


def test_the_head_says_what_was_voted(pair, model):
    said = model.classes_[model.head_proba(atac(pair)).argmax(1)]
    assert (said == model.pseudo_labels_).mean() > 0.9


def test_stage_three_from_scratch_and_from_stage_one(pair, model):
    warm = ScJoint(**QUICK, init="stage1").fit(pair, sample_domain="domain")
    alone = ScJoint(**QUICK | {"retrain_epochs": 0}).fit(pair, sample_domain="domain")
    assert np.array_equal(warm.pseudo_shares_, model.pseudo_shares_)
    assert np.array_equal(warm.pseudo_shares_, alone.predict_proba(atac(pair))), "stage 1 is the same"
    first = {name: m.history_.rows[0]["types"] for name, m in {"warm": warm, "scratch": model}.items()}
    assert first["warm"] < first["scratch"]
    assert right(atac(pair), warm.predict(atac(pair))) > 0.75


def test_unlike_cells_are_rejected(pair):
    """Votes for cells of a type that RNA lacks are less sure, so that a threshold rejects more of them."""
    open_set = simulate.modalities(
        400, 400, 1000, proportions={"a": 3, "b": 3, "c": 2}, missing=["c"], noise=0.2, seed=5
    )
    model = ScJoint(**QUICK, unknown=0.9).fit(open_set, sample_domain="domain")
    cells = atac(open_set)
    rejected, new = model.predict(cells) == "unknown", (cells.obs["cell_type"] == "c").to_numpy()
    assert rejected[new].mean() > rejected[~new].mean()
    assert not (model.set_params(unknown=None).predict(cells) == "unknown").any()


def test_several_data_sets_of_each_modality(pair):
    domain = pair.obs["domain"].to_numpy() * (1 + np.arange(pair.n_obs) % 2)
    model = ScJoint(**QUICK)
    source, target = model._data_sets(pair, domain, 300)
    assert [len(rows) for rows in (*source, *target)] == [150] * 4
    model.fit(pair, "cell_type", domain)
    assert right(atac(pair), model.predict(atac(pair))) > 0.75
    assert len(model.pseudo_labels_) == 300, "in the order of the target cells"


def test_last_columns_that_are_proteins_are_not_binarised(pair):
    dense = pair.X.toarray()
    dense[:, -50:] *= 3
    plain, some = (ScJoint(**QUICK, n_proteins=n) for n in (0, 50))
    y, domain = np.asarray(pair.obs["cell_type"]), pair.obs["domain"].to_numpy()
    shares = [m.fit(dense, y, domain).predict_proba(dense) for m in (plain, some)]
    assert not np.array_equal(*shares)
    assert np.array_equal(shares[0], ScJoint(**QUICK).fit(pair.X.toarray(), y, domain).predict_proba(dense > 0))
    with pytest.raises(DataError, match="n_proteins=1001"):
        ScJoint(**QUICK, n_proteins=1001).fit(dense, y, domain)


def test_as_published(pair):
    model = ScJoint(**QUICK, **PUBLISHED).fit(pair, sample_domain="domain")
    shares, said = model.predict_proba(pair), model.confidence(pair)
    assert ((said > 0) == (shares.argmax(1) == 0)).all()
    assert right(atac(pair), model.predict(atac(pair))) > 0.6


def test_a_clipped_gradient_holds_what_would_diverge(pair):
    """At a learning rate at which training as published ends in an error, the default goes on."""
    wild = QUICK | {"lr": 1.0, "retrain_epochs": 0}
    with pytest.raises(TrainingError, match="set clip_norm"):
        ScJoint(**wild, clip_norm=None).fit(pair, sample_domain="domain")
    history = ScJoint(**wild).fit(pair, sample_domain="domain").history_
    assert history.rows[-1]["loss"] < 1e4


def test_without_target_cells(pair):
    rna = pair[(pair.obs["domain"] > 0).to_numpy()]
    model = ScJoint(**QUICK).fit(rna)
    assert not hasattr(model, "pseudo_labels_") and right(rna, model.predict(rna)) > 0.9


def test_a_data_set_of_one_cell_is_refused(pair):
    domain = pair.obs["domain"].to_numpy().copy()
    domain[-1] = -2
    with pytest.raises(DataError, match="one cell has no covariance"):
        ScJoint(**QUICK).fit(pair, "cell_type", domain)


@pytest.mark.parametrize(
    "wrong", [{"centres": "free"}, {"init": "warm"}, {"sampling": "x"}, {"top": 2}, {"retrain_lr": 0}, {"devices": 2}]
)
def test_settings_are_checked(pair, wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        ScJoint(**wrong).fit(pair, sample_domain="domain")


# The real pair.

ROUTES = os.environ.get("BORROWED_MIRROR", "")


@pytest.mark.skipif(
    "official" not in ROUTES, reason="the real proteins are not here: name their folder in BORROWED_MIRROR"
)
def test_proteins_without_training_name_nine_in_ten():
    cells = load("cite-asap", route="official")
    is_cite, types = (cells.obs["modality"] == "cite").to_numpy(), np.asarray(cells.obs["cell_type"].astype(str))
    names, labels = np.unique(types[is_cite], return_inverse=True)
    scored = np.isin(types, names) & ~is_cite
    shares = vote_shares(cells.X[is_cite], labels, cells.X[scored])
    assert scored.sum() == 4157
    assert (names[shares.argmax(1)] == types[scored]).mean() == pytest.approx(0.9211, abs=5e-5)


@pytest.mark.skip(reason="the published embeddings of the whole pair are not here, and have no route")
def test_stored_embeddings_give_the_stored_votes():
    raise AssertionError("load them, and count 3846 and 3856 of 4157 cells")


# Gene activity.

GENES = pd.DataFrame(
    {
        "chromosome": ["chr1", "chr1", "chr2"],
        "start": [5000, 9000, 5000],
        "end": [8000, 9500, 6000],
        "strand": list("+-+"),
    },
    index=["A", "B", "C"],
)
PEAKS = pd.DataFrame(
    {
        "chromosome": ["chr1"] * 6 + ["chr2", "chr3"],
        "start": [2500, 3000, 7900, 11400, 11500, 7990, 2400, 5000],
        "end": [3000, 3100, 8100, 11600, 11700, 9001, 2999, 5100],
    }
)


def test_gene_activity_of_a_few_peaks():
    """A reaches from 3,000 to 8,000, B from 9,000 to 11,500 (it starts at its end), C from 3,000; ends are not in."""
    found = gene_activity(np.eye(8) * np.arange(1, 9), PEAKS, GENES)
    #        A        B        C
    expected = [[0, 0, 0], [2, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 0], [6, 6, 0], [0, 0, 0], [0, 0, 0]]
    assert found.format == "csr" and found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), expected)
    np.testing.assert_array_equal(gene_activity(np.eye(8), PEAKS, GENES, upstream=0).toarray()[1], [0, 0, 0])


@given(st.integers(0, 2**32 - 1))
def test_overlaps_are_those_of_all_pairs(seed):
    rng = np.random.default_rng(seed)
    tables = []
    for n in (rng.integers(1, 30), rng.integers(1, 12)):
        start = rng.integers(0, 60, n)
        tables.append(
            pd.DataFrame(
                {"chromosome": rng.choice(["a", "b"], n), "start": start, "end": start + rng.integers(1, 40, n)}
            )
        )
    peaks, windows = tables
    truth = [
        [p.chromosome == w.chromosome and p.start < w.end and p.end > w.start for w in windows.itertuples()]
        for p in peaks.itertuples()
    ]
    np.testing.assert_array_equal(overlaps(peaks, windows).toarray(), np.array(truth, np.float32))


@pytest.mark.parametrize(
    ("peaks", "genes", "said"),
    [
        (PEAKS[:3], GENES, "8 columns and peaks 3 rows"),
        (PEAKS.drop(columns="end"), GENES, "end not found"),
        (PEAKS, GENES.drop(columns="strand"), "strand not found"),
        (PEAKS, None, "genes must be a table"),
        (PEAKS, GENES.assign(strand="."), "drop genes without one"),
        (PEAKS, GENES.assign(chromosome=["1", "1", "2"]), "no chromosome in common"),
        (PEAKS.assign(start=9e9), GENES, "start below end"),
        (PEAKS.assign(start="x"), GENES, "numbers of bases"),
    ],
)
def test_places_that_cannot_be_are_refused(peaks, genes, said):
    with pytest.raises(DataError, match=said):
        gene_activity(np.eye(8), peaks, genes)


def test_peaks_far_from_their_gene_are_lost():
    """Which type has more of a gene: activity says it as RNA does where peaks lie in the gene, not far off."""
    kept = {}
    for distal in (0.0, 1.0):
        adata = simulate.multiome(400, 100, 400, links=3, distal=distal, seed=1)
        activity = gene_activity(adata.obsm["atac"], adata.uns["peaks"], adata.var).toarray()
        types = adata.obs["cell_type"].to_numpy(str)
        means = [np.stack([X[types == t].mean(0) for t in np.unique(types)]) for X in (np.log1p(adata.X), activity)]
        apart = [np.sign(m - m.mean(0)) for m in means]
        kept[distal] = (apart[0] == apart[1]).mean()
    assert kept[0.0] > 0.65 and kept[0.0] - kept[1.0] > 0.15
