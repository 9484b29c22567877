"""Episodes: what is drawn is fair, never overlaps, and is the same from every kind of table."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.preprocessing import MinMaxScaler

from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.nn.episodes import EpisodeSampler, episode_sizes, unit_range


def table(sizes=(20, 16, 15, 30), genes=6, seed=0):
    """Rows whose first entry is their number, so that what was gathered can be told; labels in mixed order."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    X = rng.random((len(y), genes)).astype(np.float32)
    X[:, 0] = np.arange(len(y))
    return X, np.array([f"type {c}" for c in y])


# Scaling.


def dense(X):
    return X.toarray() if sparse.issparse(X) else np.asarray(X)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.coo_array, torch.from_numpy])
@pytest.mark.parametrize("shift", [0.0, -3.0])
def test_unit_range_is_sklearns_on_the_transpose(kind, shift):
    counts = np.random.default_rng(0).poisson(0.5, (9, 30)).astype(np.float32)
    counts[3] = 0
    X = counts + np.float32(shift) * (counts > 0)
    before = X.copy()
    scaled = unit_range(kind(X))
    np.testing.assert_allclose(dense(scaled), MinMaxScaler().fit_transform(X.T).T, atol=1e-6)
    assert (before == X).all() and scaled.dtype in (np.float32, torch.float32)
    assert sparse.issparse(scaled) == (sparse.issparse(kind(X)) and shift == 0)


def test_depth_and_base_of_the_logarithm_leave_no_trace():
    X = np.random.default_rng(0).random((4, 50)).astype(np.float32)
    for other in (X * 20000, X / np.log(2), X + 7):
        np.testing.assert_allclose(unit_range(other), unit_range(X), atol=1e-5)


def test_a_row_of_equal_values_is_zeros():
    assert not unit_range(np.full((2, 3), 5.0)).any()
    assert not unit_range(sparse.csr_matrix((2, 3))).toarray().any()


def test_an_entry_stored_in_two_parts_is_one_entry():
    X = sparse.csr_matrix((np.array([1.0, 1, 4]), np.array([0, 0, 2]), np.array([0, 3])), shape=(1, 3))
    assert unit_range(X).toarray().tolist() == [[0.5, 0, 1]]


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, torch.from_numpy])
def test_what_cannot_be_scaled_is_refused(kind):
    X = np.ones((3, 4), np.float32)
    X[1, 2] = np.nan
    with pytest.raises(DataError, match="1 rows hold NaN"):
        unit_range(kind(X))
    with pytest.raises(DataError, match="1 dimensions"):
        unit_range(np.ones(4))


# Sampling.


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=7),
    n_way=st.integers(1, 7),
    k_shot=st.integers(1, 6),
    n_query=st.integers(1, 8),
    n=st.integers(0, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_episodes_of_any_table(sizes, n_way, k_shot, n_query, n, seed):
    X, y = table(sizes)
    large = [c for c, size in enumerate(sizes) if size >= k_shot + n_query]
    if len(large) < n_way:
        with pytest.raises(DataError, match="have the"):
            EpisodeSampler(X, y, n_way, k_shot, n_query)
        return
    sampler = EpisodeSampler(X, y, n_way, k_shot, n_query, seed)
    assert sampler.classes_.tolist() == [f"type {c}" for c in large]
    assert len(sampler.left_out) == len(sizes) - len(large)
    support, query, classes = sampler.indices(n)
    assert (support.shape, query.shape) == ((n, n_way, k_shot), (n, n_way, n_query))
    for one in range(n):
        assert len(set(classes[one])) == n_way
        rows = np.concatenate([support[one], query[one]], axis=1)
        assert len(set(rows.ravel())) == rows.size  # no row twice, so none in both
        assert (y[rows] == sampler.classes_[classes[one]][:, None]).all()


def test_every_class_and_every_row_has_the_same_chance():
    X, y = table((16, 40, 20))
    support, query, classes = EpisodeSampler(X, y, 2, 5, 10, seed=1).indices(6000)
    assert np.allclose(np.bincount(classes.ravel()) / 12000, 1 / 3, atol=0.01)
    seen = {name: np.bincount(rows.ravel(), minlength=len(y)) for name, rows in (("s", support), ("q", query))}
    for kind, size in zip(np.unique(y), (16, 40, 20)):
        for name, many in (("s", 5), ("q", 10)):
            expected = 4000 * many / size
            assert np.abs(seen[name][y == kind] - expected).max() < 5 * np.sqrt(expected)
    # Place in the episode says nothing of the row either: Floyd's order is undone.
    first = np.bincount(support[:, :, 0][y[support[:, :, 0]] == "type 0"], minlength=len(y))[y == "type 0"]
    assert np.abs(first - 250).max() < 5 * np.sqrt(250)


def test_one_seed_sets_classes_and_rows():
    X, y = table()
    one, two, other = (EpisodeSampler(X, y, 3, 5, 10, seed=s) for s in (4, 4, 5))
    for _ in range(3):
        a, b, c = (s.batch(2) for s in (one, two, other))
        assert torch.equal(a.support, b.support) and torch.equal(a.query, b.query)
        assert not torch.equal(a.support, c.support)
    # A generator given leaves the sampler's own where it was.
    one.indices(3, np.random.default_rng(0))
    assert torch.equal(one.batch(1).query, two.batch(1).query)


def test_drawing_leaves_the_global_generators_alone():
    X, y = table()
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    EpisodeSampler(X, y, 3, 5, 10).batch(3)
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])  # noqa: NPY002


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_batch_holds_the_rows_and_says_whose_they_are(shuffle):
    X, y = table()
    sampler = EpisodeSampler(X, y, 3, 4, 6, seed=2, shuffle=shuffle)
    support, query, target = sampler.batch(5)
    assert support.shape == (5, 3, 4, 6) and query.shape == (5, 18, 6) and target.shape == (5, 18)
    assert support.dtype == query.dtype == torch.float32 and target.dtype == torch.int64
    kind = y[support[..., 0].long().numpy()][:, :, 0]  # episodes × classes
    assert (y[query[..., 0].long().numpy()] == np.take_along_axis(kind, target.numpy(), 1)).all()
    in_order = torch.arange(3).repeat_interleave(6).expand(5, -1)
    assert torch.equal(target, in_order) != shuffle


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array, torch.from_numpy, np.asfortranarray, np.float64])
def test_every_kind_of_table_gives_the_same_episodes(kind):
    X, y = table()
    wanted, found = (EpisodeSampler(form(X), y, 3, 5, 10, seed=3).batch(2) for form in (np.asarray, kind))
    assert all(torch.equal(a, b) for a, b in zip(wanted, found))


def test_the_table_is_not_copied():
    X, y = table()
    assert np.shares_memory(EpisodeSampler(X, y, 3, 5, 10).X.numpy(), X)
    tensor = torch.from_numpy(X)
    assert EpisodeSampler(tensor, y, 3, 5, 10).X.data_ptr() == tensor.data_ptr()
    X.flags.writeable = False
    assert EpisodeSampler(X, y, 3, 5, 10).batch().support.shape == (1, 3, 5, 6)


def test_the_digest_tells_samplers_apart():
    X, y = table()
    same = EpisodeSampler(X, y, 3, 5, 10, seed=9).digest()
    assert (
        same
        == EpisodeSampler(X.copy(), y, 3, 5, 10).digest()
        == EpisodeSampler(sparse.csr_matrix(X), y, 3, 5, 10).digest()
    )
    changed = X.copy()
    changed[3, 3] += 1
    for other in ((changed, y, 3, 5, 10), (X, y[::-1], 3, 5, 10), (X, y, 2, 5, 10), (X, y, 3, 4, 10)):
        assert EpisodeSampler(*other).digest() != same


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_way": 5}, "4 of 4 classes"),
        ({"k_shot": 10, "n_query": 10}, "2 of 4 classes have the 20 rows"),
        ({"y": np.zeros(3)}, "y has shape"),
        ({"X": np.zeros(81, np.float32)}, "shape"),
        ({"X": np.full((81, 6), np.nan)}, "in 81 rows"),
        ({"X": sparse.csr_matrix(np.full((81, 6), np.inf))}, "NaN or infinities"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(options, said):
    X, y = table()
    with pytest.raises(DataError, match=said):
        EpisodeSampler(**{"X": X, "y": y, "n_way": 3, "k_shot": 5, "n_query": 10} | options)


@pytest.mark.parametrize(("name", "value"), [("n_way", 0), ("k_shot", 2.5), ("n_query", True)])
def test_sizes_that_cannot_be_used_are_refused(name, value):
    with pytest.raises(SettingError, match=f"{name}={value}"):
        EpisodeSampler(*table(), **{name: value})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_table_on_an_accelerator_gives_the_same_episodes():
    X, y = table()
    sampler = EpisodeSampler(X, y, 3, 5, 10, seed=3, device="cuda")
    assert sampler.X.is_cuda
    for here, there in zip(EpisodeSampler(X, y, 3, 5, 10, seed=3).batch(2), sampler.batch(2)):
        assert there.is_cuda and torch.equal(here, there.cpu())
    assert EpisodeSampler(X, y, 3, 5, 10).to("cuda").batch().query.is_cuda


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    way=st.integers(2, 6),
    shots=st.integers(1, 8),
    queries=st.integers(1, 12),
)
def test_episodes_shrink_to_what_there_is_and_no_further(sizes, way, shots, queries):
    found = episode_sizes(sizes, way, shots, queries)
    if sum(size >= 2 for size in sizes) < 2:
        assert found is None
        return
    assert all(1 <= a <= b for a, b in zip(found, (way, max(shots, 1), queries + shots)))
    if sum(size >= shots + queries for size in sizes) >= way:
        assert found == (way, shots, queries)
    X, y = table(sizes)
    EpisodeSampler(X, y, *found)  # it can be drawn
