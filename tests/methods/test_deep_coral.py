"""Deep CORAL: its loss against NumPy and skada, its step, and that embeddings are brought together."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from shared.data.errors import DataError
from shared.methods.deep_coral import DeepCORAL, EncoderHead, coral, coral_step, source_step


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.normal(size=(15, 4)), rng.normal(size=(11, 4)) @ rng.normal(size=(4, 4)) + 1


def test_the_loss_is_what_numpy_makes_of_it(clouds):
    a, b = clouds
    wanted = ((np.cov(a.T) - np.cov(b.T)) ** 2).sum() / (4 * 4**2)
    assert float(coral(torch.tensor(a), torch.tensor(b))) == pytest.approx(wanted, rel=1e-12)
    assert float(coral(torch.tensor(a), torch.tensor(a + 3))) == pytest.approx(0, abs=1e-20), "means do not matter"


def test_the_loss_is_skadas(clouds):
    pytest.importorskip("skorch", reason="skada's deep methods need skorch: install the extra peers")
    losses = pytest.importorskip("skada.deep.losses", reason="install the extra peers")
    a, b = map(torch.tensor, clouds)
    assert float(coral(a, b)) == pytest.approx(float(losses.deepcoral_loss(a, b)), rel=1e-9)


def test_the_gradient_is_that_of_the_loss(clouds):
    a, b = (torch.tensor(x, requires_grad=True) for x in clouds)
    assert torch.autograd.gradcheck(coral, (a, b))


def test_the_step_is_cross_entropy_and_weighted_coral():
    torch.manual_seed(0)
    net, X, T, y = EncoderHead(6, (5, 4), 3), torch.randn(9, 6), torch.randn(8, 6), torch.arange(9) % 3
    plain, distance = cross_entropy(net(X), y), coral(net.encode(X), net.encode(T))
    assert torch.allclose(coral_step(net, X, y, T, weight=2.5), plain + 2.5 * distance)
    assert torch.equal(source_step(net, X, y), plain)


def shifted(n=120, seed=0):
    """Three types in two domains; in the target two genes that matter little in the source vary ten times as much."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    X = np.eye(10)[y] * 3 + rng.normal(size=(n, 10))
    domain = np.where(np.arange(n) < n // 2, 1, -1)
    X[domain < 0, 8:] *= 10
    return X.astype(np.float32), np.array(["a", "b", "c"])[y], domain


def test_embeddings_are_brought_together():
    X, y, domain = shifted()
    distance = []
    for weight in (0.0, 10.0):
        model = DeepCORAL((16, 8), weight=weight, epochs=40, lr=1e-2, device="cpu", random_state=0).fit(X, y, domain)
        a, b = (torch.from_numpy(model.transform(X[domain == d])) for d in (1, -1))
        distance.append(float(coral(a, b)))
    assert distance[1] < 0.2 * distance[0]


def test_labels_of_target_cells_are_not_looked_at():
    X, y, domain = shifted()
    masked = np.where(domain < 0, "no such type", y)
    one, two = (DeepCORAL(epochs=3, device="cpu", random_state=0).fit(X, labels, domain) for labels in (y, masked))
    assert np.array_equal(one.predict_proba(X), two.predict_proba(X)) and list(two.classes_) == ["a", "b", "c"]


def test_without_target_cells_it_is_the_network_from_the_source():
    X, y, _ = shifted()
    alone = DeepCORAL(epochs=3, device="cpu", random_state=0).fit(X, y)
    zero = DeepCORAL(epochs=3, weight=0, device="cpu", random_state=0).fit(X, y, np.ones(len(y)))
    assert np.array_equal(alone.predict_proba(X), zero.predict_proba(X))


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        (-np.ones(120), "no cell is of the source"),
        (np.zeros(120), "positive for source and negative for target"),
        (np.ones(5), "one whole number for each of the 120 cells"),
        (np.r_[np.ones(119), -1], "one target cell has no covariance"),
        (np.array(["a"] * 120), "positive for source"),
    ],
)
def test_domains_that_cannot_be_used_are_refused(domain, said):
    X, y, _ = shifted()
    with pytest.raises(DataError, match=said):
        DeepCORAL(epochs=1, device="cpu").fit(X, y, domain)
