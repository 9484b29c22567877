"""Losses of two domains: the discrepancy against loops and skada, the reversed gradient, the discriminator."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from shared.nn.losses import WIDTHS, domain_loss, mmd2, paired_mmd2, reverse_gradient


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return torch.tensor(rng.normal(size=(15, 3))), torch.tensor(rng.normal(size=(11, 3)) + 1)


def by_loops(a, b, widths, unbiased):
    def k(x, y):
        return sum(math.exp(-float((x - y).square().sum()) / (2 * w**2)) for w in widths) / len(widths)

    def within(z):
        pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j or not unbiased]
        return np.mean([k(z[i], z[j]) for i, j in pairs])

    return within(a) + within(b) - 2 * np.mean([k(x, y) for x in a for y in b])


@pytest.mark.parametrize("unbiased", [True, False])
def test_the_discrepancy_is_what_loops_make_of_it(clouds, unbiased):
    a, b = clouds
    assert float(mmd2(a, b, [0.5, 2.0], unbiased)) == pytest.approx(by_loops(a, b, [0.5, 2.0], unbiased), abs=1e-12)
    both = torch.cat([a, b])
    median = float(np.median([float((x - y).square().sum()) for i, x in enumerate(both) for y in both[:i]]))
    widths = [w * math.sqrt(median) for w in WIDTHS]
    assert float(mmd2(a, b, unbiased=unbiased)) == pytest.approx(by_loops(a, b, widths, unbiased), abs=1e-12)


def test_the_discrepancy_does_not_depend_on_place_and_scale(clouds):
    a, b = clouds
    assert float(mmd2(100 * a + 7, 100 * b + 7)) == pytest.approx(float(mmd2(a, b)), rel=1e-9)
    single = mmd2((a + 1e3).float(), (b + 1e3).float())
    assert float(single) == pytest.approx(float(mmd2(a, b)), abs=1e-4), "rounding of what all rows share"


def test_the_discrepancy_of_one_sample_with_itself_is_zero_and_has_a_gradient():
    a = torch.randn(9, 4, dtype=torch.double, requires_grad=True)
    loss = mmd2(a, a)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-12) and torch.isfinite(a.grad).all()
    assert float(mmd2(torch.ones(4, 2), torch.ones(3, 2))) == 0, "rows that are all alike"


def test_the_unbiased_discrepancy_is_zero_on_average_for_one_distribution():
    drawn = np.random.default_rng(0).normal(size=(200, 2, 20, 2))
    unbiased, biased = ([float(mmd2(*map(torch.tensor, pair), unbiased=u)) for pair in drawn] for u in (True, False))
    assert abs(np.mean(unbiased)) < 3 * np.std(unbiased) / np.sqrt(len(drawn)) and min(unbiased) < 0
    assert min(biased) > 0


def test_the_gradient_is_that_of_the_discrepancy(clouds):
    a, b = (x.clone().requires_grad_() for x in clouds)
    assert torch.autograd.gradcheck(lambda a, b: mmd2(a, b, [0.7, 2.0]), (a, b))
    assert torch.autograd.gradcheck(lambda a, b: mmd2(a, b, [0.7, 2.0], True), (a, b))


@pytest.mark.parametrize("unbiased", [True, False])
def test_many_pairs_are_what_each_is_alone(unbiased):
    samples = torch.tensor(np.random.default_rng(0).normal(size=(4, 9, 3)) + np.arange(4)[:, None, None])
    pairs = torch.tensor([[0, 0, 3], [1, 3, 1]])
    found = paired_mmd2(samples, pairs, [0.5, 2.0], unbiased)
    assert found.tolist() == pytest.approx(
        [float(mmd2(samples[i], samples[j], [0.5, 2.0], unbiased)) for i, j in pairs.T]
    )
    across = torch.stack([torch.cdist(samples[i], samples[j]) for i, j in pairs.T]).square().median().sqrt()
    widths = [float(w * across) for w in WIDTHS]
    assert torch.allclose(paired_mmd2(samples, pairs, None, unbiased), paired_mmd2(samples, pairs, widths, unbiased))
    assert paired_mmd2(samples, pairs[:, :0]).shape == (0,)
    given = samples.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: paired_mmd2(s, pairs, [0.7, 2.0], unbiased), given)


def test_the_discrepancy_is_skadas(clouds):
    """The same estimator; skada's own kernel takes distances without squaring them, so it is given ours."""
    pytest.importorskip("skorch", reason="skada's deep methods need skorch: install the extra peers")
    losses = pytest.importorskip("skada.deep.losses", reason="install the extra peers")

    def kernel(a, b):
        return sum(torch.exp(-(torch.cdist(a, b) ** 2) / (2 * w**2)) for w in (0.5, 2.0)) / 2

    theirs = float(losses._maximum_mean_discrepancy(*clouds, kernel))
    assert float(mmd2(*clouds, [0.5, 2.0])) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("strength", [0.0, 0.3, 2.5])
def test_a_reversed_gradient_is_minus_strength_times_the_gradient(strength):
    x, W = torch.randn(5, 4, requires_grad=True), torch.randn(4, 3)
    assert torch.equal(reverse_gradient(x, strength), x), "the way forward does not change"
    (plain,) = torch.autograd.grad((x @ W).tanh().sum(), x)
    (found,) = torch.autograd.grad((reverse_gradient(x, strength) @ W).tanh().sum(), x)
    assert torch.allclose(found, -strength * plain, atol=1e-6)


def test_a_reversed_gradient_is_skadas():
    pytest.importorskip("skorch", reason="skada's deep methods need skorch: install the extra peers")
    modules = pytest.importorskip("skada.deep.modules", reason="install the extra peers")
    x = torch.randn(5, 4, dtype=torch.double, requires_grad=True)
    ours, theirs = (
        torch.autograd.grad(f(x, 0.7).sin().sum(), x)[0]
        for f in (reverse_gradient, modules.GradientReversalLayer.apply)
    )
    assert torch.allclose(ours, theirs, rtol=1e-12)


def test_the_discriminator_learns_forward_and_what_came_before_it_in_reverse():
    torch.manual_seed(0)
    discriminator = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1))
    a, b = torch.randn(6, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    told = torch.cat([torch.ones(6), torch.zeros(4)])
    plain = binary_cross_entropy_with_logits(discriminator(torch.cat([a, b]))[:, 0], told)
    loss = domain_loss(discriminator, a, b, 0.25)
    assert torch.allclose(loss, plain)
    wanted = torch.autograd.grad(plain, [a, b, *discriminator.parameters()], retain_graph=True)
    found = torch.autograd.grad(loss, [a, b, *discriminator.parameters()])
    signs = [-0.25, -0.25, *[1] * 4]
    assert all(torch.allclose(f, s * w, atol=1e-7) for s, w, f in zip(signs, wanted, found, strict=True))
    with torch.no_grad():
        for part in discriminator.parameters():
            part.zero_()
        assert float(domain_loss(discriminator, a, b)) == pytest.approx(math.log(2))
