"""The sparse first layer equals the dense one, forward and backward, on whatever a batch may look like."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from shared.nn import sparse as module
from shared.nn.sparse import Rows, SparseLinear, SparseProduct, few_entries


def cells(n=7, genes=11, density=0.3, seed=0, dtype=np.float32):
    return sparse.random(n, genes, density, format="csr", dtype=dtype, random_state=seed)


def both(X, width=5, seed=0, dtype=torch.float64):
    """Output and gradients of the layer, and of torch's own on the same dense cells."""
    torch.manual_seed(seed)
    layer = SparseLinear(X.shape[1], width).to(dtype)
    dense = torch.nn.Linear(X.shape[1], width).to(dtype)
    with torch.no_grad():
        dense.weight.copy_(layer.weight.T)
        dense.bias.copy_(layer.bias)
    pull = torch.randn(X.shape[0], width, dtype=dtype)
    ours, theirs = layer(Rows(X, dtype=dtype)), dense(torch.as_tensor(X.toarray()).to(dtype))
    for out in (ours, theirs):
        (out * pull).sum().backward()
    return (ours, layer.weight.grad, layer.bias.grad), (theirs, dense.weight.grad.T, dense.bias.grad)


def agree(X, **options):
    for a, b in zip(*both(X, **options), strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 30), st.floats(0, 1), st.integers(1, 9), st.integers(0, 99))
def test_it_equals_the_dense_layer(n, genes, density, width, seed):
    agree(cells(n, genes, density, seed), width=width, seed=seed)


def test_single_precision_and_real_widths():
    agree(cells(165, 2000, 0.07), width=200, dtype=torch.float32)


@pytest.mark.parametrize(
    "X",
    [
        sparse.csr_matrix((4, 6), dtype=np.float32),
        sparse.csr_matrix(np.array([[0, 0, 0], [1, 0, 2], [0, 0, 0]], np.float32)),
        sparse.csr_matrix((np.ones(4, np.float32), [1, 1, 0, 1], [0, 2, 4]), shape=(2, 3)),
        sparse.csr_matrix((np.zeros(2, np.float32), [0, 2], [0, 1, 2]), shape=(2, 3)),
        sparse.csr_matrix((np.arange(4.0), [2, 0, 1, 0], [0, 2, 4]), shape=(2, 3)),
        sparse.csr_array(np.eye(3, dtype=np.int64)),
        sparse.csc_matrix(np.eye(3, dtype=np.float32)),
        -cells(),
    ],
    ids=["all zero", "empty cells", "stored twice", "stored zeros", "unsorted", "whole numbers", "by gene", "negative"],
)
def test_odd_batches_equal_the_dense_layer(X):
    agree(X)


def test_the_gradient_is_that_of_finite_differences():
    rows = Rows(cells(dtype=np.float64), dtype=torch.float64)
    weight = torch.randn(11, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: SparseProduct.apply(w, rows).sin(), (weight,))


@pytest.mark.parametrize("size", [1, 4, 11, 50])
@pytest.mark.parametrize("density", [0.02, 0.3, 1])
def test_a_block_of_genes_at_a_time_changes_rounding_only(size, density, monkeypatch):
    monkeypatch.setattr(module, "CACHE", 0)
    monkeypatch.setattr(module, "BLOCK", 5 * size)
    agree(cells(density=density))
    agree(cells(4, 30, density, seed=1), dtype=torch.float32)
    rows = Rows(cells(density=density, dtype=np.float64), dtype=torch.float64)
    weight = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: SparseProduct.apply(w, rows).sin(), (weight,))
    found = [len(gene) for gene, _, _ in rows.in_blocks(size)]
    assert len(found) <= -(-11 // size) and sum(found) == len(rows.gene)


def test_weights_that_no_cache_holds():
    """At such sizes blocks are used by themselves; the dense layer gives the same numbers."""
    X = cells(6, 3000, 0.05)
    assert module.CACHE < 3000 * 2800
    agree(X, width=2800, dtype=torch.float32)


def test_what_is_not_zero_in_a_dense_tensor():
    for X in (cells(), cells(5, 40, 0.05), cells(3, 4, 0), -cells(density=1)):
        rows = Rows.of(torch.from_numpy(X.toarray()))
        assert torch.equal(rows.dense(), torch.from_numpy(X.toarray())) and len(rows.gene) == X.nnz
        assert np.array_equal(rows.cell_start, X.indptr[:-1])
    assert Rows.of(torch.ones(2, 3, dtype=torch.float64)).value.dtype == torch.float64


def test_a_layer_like_one_of_torch():
    linear, x = torch.nn.Linear(11, 4), torch.randn(3, 11)
    state = torch.get_rng_state()
    layer = SparseLinear.of(linear)
    assert torch.equal(torch.get_rng_state(), state) and layer.bias is linear.bias
    assert layer.weight.is_contiguous() and torch.equal(layer.weight, linear.weight.T)
    torch.testing.assert_close(layer(x), linear(x))


def test_many_weights_and_few_entries_are_asked_for():
    X = cells(20, 4000, 0.05)
    assert few_entries(X, 4000) and not few_entries(X, 100) and not few_entries(X.toarray(), 4000)
    assert not few_entries(cells(20, 4000, 0.2), 4000)


def test_only_genes_that_occur_get_a_gradient():
    X = cells(5, 40, 0.05)
    (_, grad, _), _ = both(X)
    assert set(grad.abs().sum(1).nonzero().ravel().tolist()) == set(X.indices.tolist())


def test_several_data_sets_lie_under_one_another():
    parts = [cells(3, seed=1), cells(5, seed=2), cells(1, seed=3)]
    rows = Rows(parts)
    assert rows.parts == [3, 5, 1] and len(rows) == 9 and rows.shape == (9, 11)
    assert np.array_equal(rows.dense().numpy(), sparse.vstack(parts).toarray())


def test_genes_without_an_entry_may_be_left_out():
    X = cells(6, 30, 0.05)
    kept = np.flatnonzero(np.diff(X.tocsc().indptr))
    columns = np.full(30, -1)
    columns[kept] = np.arange(len(kept))
    rows = Rows(X, columns=columns, n_columns=len(kept))
    assert rows.shape == (6, len(kept)) and np.array_equal(rows.dense().numpy(), X.toarray()[:, kept])


def test_a_dense_tensor_and_another_device_take_the_plain_product():
    layer, rows = SparseLinear(11, 4), Rows(cells())
    expected = layer(rows)
    torch.testing.assert_close(layer(rows.dense()), expected)
    rows.device = torch.device("mps")  # on which torch sums no bags
    out = layer(rows)
    torch.testing.assert_close(out, expected)
    assert "SparseProduct" not in str(out.grad_fn.next_functions) and "SparseProduct" in str(
        expected.grad_fn.next_functions
    )


def test_it_starts_as_torchs_own_layer_does():
    torch.manual_seed(0)
    ours, theirs = SparseLinear(400, 50), torch.nn.Linear(400, 50)
    for a, b in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        assert a.abs().max() <= 1 / 20 and abs(a.std() / b.std() - 1) < 0.25
    assert (ours.weight.std() / theirs.weight.std() - 1).abs() < 0.02
    assert "n_genes=400, width=50" in repr(ours)


@pytest.mark.parametrize("density", [0, 0.05, 0.21, 0.6, 1])
def test_a_dense_block_of_common_genes_changes_rounding_only(density):
    X, weight = cells(40, 30, density, dtype=np.float64), torch.randn(30, 5, dtype=torch.float64, requires_grad=True)
    plain, reused = (Rows(X, dtype=torch.float64, reused=r) for r in (False, True))
    assert plain.common is None and reused.block.shape == (40, int((X.getnnz(0) > 8).sum()))
    assert torch.equal(reused.dense(), plain.dense())
    if X.nnz:
        grads = [
            torch.autograd.grad(SparseProduct.apply(weight, rows).sin().sum(), weight)[0] for rows in (plain, reused)
        ]
        torch.testing.assert_close(*grads)
        torch.testing.assert_close(*(SparseProduct.apply(weight, rows) for rows in (plain, reused)))


def test_the_same_bytes_every_time():
    X = cells(200, 500, 0.1)
    one, two = (both(X, dtype=torch.float32)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_cells_are_turned_round_only_for_a_backward_pass():
    layer, rows = SparseLinear(11, 4), Rows(cells())
    with torch.no_grad():
        assert not layer(rows).requires_grad
    assert "by_gene" not in vars(rows)
    layer(rows).sum().backward()
    assert "by_gene" in vars(rows)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="not as ndarray"):
        Rows(np.eye(3))
    with pytest.raises(ValueError, match="11, 12 genes: align"):
        Rows([cells(), cells(genes=12)])
    for wrong in (Rows(cells()), torch.zeros(2, 11)):
        with pytest.raises(ValueError, match="reads 12 genes and the cells have 11"):
            SparseLinear(12, 3)(wrong)
    with pytest.raises(ValueError, match="n_genes=0 is not a whole number from 1 up"):
        SparseLinear(0, 3)
