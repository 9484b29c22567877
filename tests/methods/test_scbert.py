"""scBERT: its arithmetic against performer-pytorch, NumPy and captum; masks, sequences, caching, resuming, sharing."""

import copy
import warnings
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from torch.nn.functional import cross_entropy

from shared.data import Stream
from shared.data.constraints import SettingError
from shared.data.errors import DataError, DataWarning
from shared.methods import scbert
from shared.methods.base import example_cells
from shared.methods.scbert import FavorAttention, attention, finetuning, scores, vectors
from shared.methods.scbert.batches import CellBatches
from shared.methods.scbert.heads import AfterPrefix, PooledNet, after
from shared.methods.scbert.network import Attention, pretrain_step
from shared.train.settings import warm_restarts

CPU = torch.device("cpu")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def transformer(n_genes=12, dim=8, seed=0, **how):
    torch.manual_seed(seed)
    return scbert.GeneTransformer(torch.randn(n_genes, dim), depth=2, heads=2, width=4, **how)


def tokens_of(n=5, n_genes=12, bins=5, seed=0):
    rng = np.random.default_rng(seed)
    tokens = torch.from_numpy(rng.integers(1, bins + 1, (n, n_genes)) * (rng.random((n, n_genes)) < 0.6))
    return tokens, torch.arange(n_genes).expand(n, n_genes)


# Tokens.


def test_tokens_are_the_whole_part_of_the_logarithm():
    X = np.random.default_rng(0).poisson(1, (6, 40))
    for target_sum in (1e4, 1e6):
        wanted = np.minimum(np.floor(np.log2(1 + X / X.sum(1, keepdims=True) * target_sum)), 5)
        assert np.array_equal(scbert.tokenize(torch.tensor(X, dtype=torch.float64), 5, target_sum), wanted)
    assert scbert.tokenize(torch.zeros(1, 4)).tolist() == [[0, 0, 0, 0]], "a cell without counts has no expression"


def test_logged_cells_get_the_tokens_of_their_counts():
    from shared.preprocess import log_normalize

    X = sparse.random_array((30, 50), density=0.3, rng=np.random.default_rng(0), format="csr", dtype=np.float32)
    X.data = np.ceil(5 * X.data)
    counts, logged = (scbert.Tokenizer(50, logged=logged) for logged in (False, True))
    assert (counts.tokens(X) != logged.tokens(log_normalize(X))).float().mean() < 1e-3, "up to rounding at an edge"


def test_quantiles_are_of_the_cells_own_expression():
    tokens = scbert.quantile_tokens(torch.tensor([[0, 3, 1, 1, 0, 9, 5, 2.0], [0, 0, 0, 0, 0, 0, 0, 7]]), bins=3)
    assert tokens.tolist() == [[0, 2, 1, 1, 0, 3, 3, 2], [0, 0, 0, 0, 0, 0, 0, 1]]
    many = scbert.quantile_tokens(torch.rand(3, 1000, generator=torch.Generator().manual_seed(0)), 5)
    assert all(abs(int((many == b).sum()) / 3000 - 0.2) < 0.01 for b in range(1, 6))


def test_most_values_in_the_highest_bin_are_warned_of_with_a_cure():
    """Depth is that of the genes that are given: of a hundred of two thousand all are scaled into the highest bin."""
    import anndata as ad

    from shared.preprocess import log_normalize

    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(0.5, 1, (60, 2000))).astype(np.float32)
    whole = ad.AnnData(X, obs={"cell_type": np.array(["A", "B"])[rng.integers(2, size=60)]})
    few, logged = whole[:, :100].copy(), log_normalize(whole)[:, :100].copy()
    small = {"dim": 8, "depth": 1, "heads": 1, "width": 4, "length": 20, "epochs": 1, "fit_epochs": 1, "patience": None}
    model = scbert.ScBERT(**small, gene_vectors="random", random_state=0)
    for train in (model.pretrain, model.fit):
        with pytest.warns(DataWarning, match=r"of the 100 genes that are given.* bins=\d+") as said:
            train(few)
        assert said[0].filename == __file__
    enough = int(str(said[0].message).partition("bins=")[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clone(model).set_params(logged=True).pretrain(logged)
        for cure in ({"bins": enough}, {"binning": "quantile"}, {"bins": 1}):
            clone(model).set_params(**cure).pretrain(few)
    with pytest.warns(DataWarning, match="values apart: set binning"):
        clone(model).set_params(logged=True, bins=2).pretrain(logged)


def test_a_sequence_holds_expressed_genes_first():
    tokens, _ = tokens_of(40, 30)
    noise = torch.rand(40, 30)
    for length in (8, 25):
        some, genes = scbert.sample_genes(tokens, length, noise)
        assert torch.equal(some, tokens.gather(1, genes)) and (genes.diff(dim=1) > 0).all()
        assert torch.equal((some > 0).sum(1), (tokens > 0).sum(1).clamp(max=length))
    tokenizer = scbert.Tokenizer(30, length=8)
    X = np.random.default_rng(0).poisson(1, (9, 30)).astype(np.float32)
    alone = [tokenizer(X[i : i + 1]) for i in range(9)]
    assert all(torch.equal(torch.cat(a), b) for a, b in zip(zip(*alone), tokenizer(X))), "no cell depends on others"


def test_a_share_of_the_expressed_genes_is_masked():
    tokens, noise = tokens_of(400, 60)[0], torch.rand(2, 400, 60, generator=torch.Generator().manual_seed(0))
    tokens[0] = 0
    read, target = scbert.mask_tokens(tokens, 5, noise)
    chosen = target != -100
    assert torch.equal(chosen.sum(1), (0.15 * (tokens > 0).sum(1)).ceil().long())
    assert (tokens[chosen] > 0).all() and torch.equal(target[chosen], tokens[chosen])
    assert torch.equal(read[~chosen], tokens[~chosen]) and set(read[chosen].tolist()) <= {1, 2, 3, 4, 5, 6}
    assert abs(float((read[chosen] == 6).float().mean()) - 0.9) < 0.02


# Vectors of genes.


def test_products_of_the_vectors_are_the_mutual_information():
    X = np.random.default_rng(0).poisson(np.repeat([[3, 0.2], [0.2, 3]], 40, 0) @ np.repeat(np.eye(2), 5, 1))
    B, n = (X > 0).astype(float), len(X)
    both = B.T @ B
    with np.errstate(divide="ignore"):
        wanted = np.maximum(np.log(both * n / np.outer(both.diagonal(), both.diagonal())), 0)
    assert np.allclose(vectors.ppmi(sparse.csr_matrix(X)), wanted, atol=1e-6)
    found = vectors.coexpression_vectors(X, dim=12)
    assert found.shape == (10, 12) and np.isclose((found**2).mean(), 1) and not found[:, 10:].any()
    cosine = found @ found.T / np.outer(*[np.linalg.norm(found, axis=1)] * 2)
    assert cosine[:5, :5].mean() > cosine[:5, 5:].mean() + 0.5, "genes of one programme lie together"


def test_a_published_table_of_vectors_is_read_by_name(tmp_path):
    path = tmp_path / "vectors.txt"
    for text in ("2 2\nA 5 6\nB 3 4\n", "A\t5 6 \nB\t3 4 \n"):
        path.write_text(text)
        table = vectors.read_gene2vec(path)
        assert table.loc["A"].tolist() == [5, 6] and len(table) == 2
    with pytest.warns(DataWarning, match="1 of 3 genes have no vector"):
        assert vectors.vectors_of(["B", "C", "A"], table, 2).tolist() == [[3, 4], [4, 5], [5, 6]]
    for bad, said in (
        ("A 1 2\nB 3\n", "2 fields in row 2"),
        ("A\nB\n", "no numbers"),
        ("A 1\nA 2\n", "twice|more than once"),
    ):
        path.write_text(bad)
        with pytest.raises(DataError, match=said):
            vectors.read_gene2vec(path)
    others = pd.DataFrame(np.ones((1, 3)), ["X"])
    for given, said in ((table, "dim=3"), (np.ones((2, 2)), r"2 genes × dim=3"), (others, "no gene has")):
        with pytest.raises(DataError, match=said):
            vectors.vectors_of(["A", "B"], given, 3)


def test_gene2vec_is_taken_from_the_catalogue_once_it_was_fetched_knowingly(tmp_path, monkeypatch):
    from shared.data import routes
    from shared.data.catalogue import entry

    for name, value in (("MIRROR", tmp_path), ("CACHE", tmp_path / "cache"), ("OFFLINE", 1)):
        monkeypatch.setenv(f"BORROWED_{name}", str(value))
    rng, found = np.random.default_rng(0), entry("gene2vec")
    lines = [f"G{i}\t" + "".join(f"{v:.4f} " for v in rng.normal(size=16)) for i in range(24)]
    (tmp_path / "gene2vec_dim_200_iter_9.txt").write_text("\n".join(lines) + "\n")
    model, cells = (
        scbert.ScBERT.example().model.set_params(gene_vectors="gene2vec", epochs=1),
        example_cells(counts=True),
    )
    with pytest.raises(DataError, match="get gene2vec --unverified"):
        model.pretrain(cells)
    routes.files(found, found.route("official"), unverified=True)
    table = vectors.read_gene2vec()
    assert table.shape == (24, 16) and list(table.index) == list(cells.var_names)
    state = model.pretrain(cells).pretrained_["state"]
    assert np.array_equal(state["genes.weight"][:-1], table.to_numpy())


# Attention.


def performer():
    """performer-pytorch's attention, the numerical oracle."""
    try:
        from performer_pytorch import FastAttention
    except ImportError:
        pytest.skip("performer-pytorch is not installed: pip install --no-deps performer-pytorch, and what it imports")
    return FastAttention


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tokens", [7, 300])
def test_random_features_are_those_of_performer_pytorch(tokens):
    torch.manual_seed(0)
    oracle = performer()(16)
    q, k, v = (drawn(2, 3, tokens, 16, seed=i).requires_grad_() for i in range(3))
    for favor in (attention.favor_attention, attention.chunked_favor):
        found, wanted = favor(q, k, v, oracle.projection_matrix), oracle(q, k, v)
        assert torch.allclose(found, wanted, atol=1e-5)
        up = drawn(*found.shape, seed=3)
        for a, b in zip(*(torch.autograd.grad(out, (q, k, v), up) for out in (found, wanted)), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("kept", [0, 2**20])
@pytest.mark.parametrize("stabilizer", ["head", "global"])
def test_chunks_give_the_numbers_and_gradients_of_the_formula(monkeypatch, stabilizer, kept):
    monkeypatch.setattr(attention, "CHUNK", 700)
    monkeypatch.setattr(attention, "KEPT", kept)
    q, k, v = (2 * drawn(2, 3, 50, 4, seed=i).requires_grad_() for i in range(3))
    W, up = attention.orthogonal_features(9, 4), drawn(2, 3, 50, 4, seed=5)
    each = [f(q, k, v, W, stabilizer) for f in (attention.favor_attention, attention.chunked_favor)]
    assert torch.allclose(*each, atol=1e-5)
    for a, b in zip(*(torch.autograd.grad(out, (q, k, v), up) for out in each), strict=True):
        assert torch.allclose(a, b, atol=1e-4, rtol=1e-4)


def test_random_features_are_what_numpy_makes_of_them():
    q, k, v = (drawn(1, 1, 6, 4, seed=i).double() for i in range(3))
    W = attention.orthogonal_features(5, 4).double()
    phi = lambda x, s: np.exp(x @ W.numpy().T / 2**0.5 - (x**2).sum(1, keepdims=True) / 4 - s) + 1e-4  # noqa: E731
    a, b = (x[0, 0].numpy() for x in (q, k))
    largest = (a @ W.numpy().T / 2**0.5).max(1, keepdims=True), (b @ W.numpy().T / 2**0.5).max()
    A = phi(a, largest[0]) @ phi(b, largest[1]).T
    assert np.allclose(attention.favor_attention(q, k, v, W)[0, 0], A / A.sum(1, keepdims=True) @ v[0, 0].numpy())


def test_directions_are_orthogonal_in_blocks_and_as_long_as_gaussian_vectors():
    W = attention.orthogonal_features(266, 64, torch.Generator().manual_seed(0))
    unit = W / W.norm(dim=1, keepdim=True)
    for start in range(0, 266, 64):
        block = unit[start : start + 64]
        assert torch.allclose(block @ block.T, torch.eye(len(block)), atol=1e-5)
    assert W.shape == (266, 64) and abs(float(W.norm(dim=1).square().mean()) / 64 - 1) < 0.05


def test_the_error_falls_with_the_square_root_of_the_features(monkeypatch):
    monkeypatch.setattr(attention, "EPS", 0)  # which is a bias, and does not fall
    q, k, v = (0.5 * drawn(1, 4, 40, 16, seed=i) for i in range(3))
    exact, generator, errors = attention.exact_attention(q, k, v), torch.Generator().manual_seed(0), {}
    for m in (64, 1024):
        draws = [attention.orthogonal_features(m, 16, generator) for _ in range(8)]
        each = [(attention.favor_attention(q, k, v, W) - exact).square().mean() for W in draws]
        errors[m] = float(torch.stack(each).mean().sqrt())
    assert 3 < errors[64] / errors[1024] < 5.5, f"sixteen times the features, a quarter of the error: {errors}"


def test_a_batch_is_coupled_by_the_global_stabilizer_alone():
    q, k, v = (3 * drawn(2, 2, 10, 4, seed=i) for i in range(3))
    k[1] *= 4
    W = attention.orthogonal_features(6, 4)
    for favor in (attention.favor_attention, attention.chunked_favor):
        apart = {}
        for stabilizer in ("head", "global"):
            alone = torch.cat([favor(q[i : i + 1], k[i : i + 1], v[i : i + 1], W, stabilizer) for i in (0, 1)])
            apart[stabilizer] = float((favor(q, k, v, W, stabilizer) - alone).abs().max())
        assert apart["head"] < 1e-5 < 1e-3 < apart["global"]


def test_bfloat16_runs_through_the_features_in_float32():
    layer = FavorAttention(8, 2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(drawn(2, 9, 8))
        out.float().sum().backward()
    assert out.dtype == torch.bfloat16 and torch.isfinite(layer.to_qkv.weight.grad).all()


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_blocks_can_be_compiled():
    """By the eager backend here: the code that a GPU would run is traced, not generated."""
    plain = transformer(attention=FavorAttention)
    net = copy.deepcopy(plain)
    for block in net.blocks:
        block.compile(backend="eager")
    batch = tokens_of()
    for a, b in zip(*(torch.autograd.grad(n(*batch).square().sum(), n.blocks[0].parameters()) for n in (plain, net))):
        assert torch.allclose(a, b, atol=1e-4)


# The network and its steps.


def test_there_are_as_many_parameters_as_in_the_code():
    net = scbert.GeneTransformer(torch.zeros(30, 200))
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 5_007_207
    assert sum(p.numel() for p in net.blocks[0].parameters()) == 834_000
    assert [p.numel() for p in net.parameters() if not p.requires_grad] == [31 * 200]
    head = scbert.CellTypeNet(net, 4)
    own = sum(p.numel() for p in head.parameters()) - sum(p.numel() for p in net.parameters())
    assert own == 201 + 31 * 512 + 512 + 512 * 128 + 128 + 128 * 4 + 4


KINDS = pytest.mark.parametrize("kind", [Attention, FavorAttention])


@KINDS
def test_the_last_token_alone_reads_all_the_same(monkeypatch, kind):
    monkeypatch.setattr(attention, "CHUNK", 300)
    net, batch = transformer(attention=kind), tokens_of()
    outs = net.encode(*batch)[:, -1], PooledNet(net, "last")(*batch)
    assert torch.allclose(*outs, atol=1e-6) and outs[1].shape == (5, 8)
    for a, b in zip(*(torch.autograd.grad(out.sum(), net.blocks.parameters(), allow_unused=True) for out in outs)):
        assert torch.allclose(a, b, atol=1e-5)


@KINDS
def test_the_order_of_the_genes_changes_nothing(kind):
    net, (tokens, genes) = transformer(attention=kind), tokens_of()
    order = torch.randperm(12)
    assert torch.allclose(net(tokens, genes)[:, order], net(tokens[:, order], genes[:, order]), atol=1e-5)
    typed = scbert.CellTypeNet(net, 3)
    assert torch.allclose(typed(tokens, genes), typed(tokens[:, order], genes[:, order]), atol=1e-5)


def test_the_masked_step_is_what_numpy_makes_of_it():
    net, (tokens, genes) = transformer(), tokens_of()
    tokens[0] = 0  # a cell with nothing to predict adds nothing
    read, target = scbert.mask_tokens(tokens, 5, torch.rand(2, 5, 12))
    loss, numbers = scbert.masked_step(net, read, genes, target)
    logits, target = net(read, genes).detach().double().numpy(), target.numpy()
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = [np.flatnonzero(row >= 0) for row in target]
    each = [[-logs[i, j, target[i, j]] for j in some] for i, some in enumerate(chosen)]
    assert loss.item() == pytest.approx(sum(np.mean(e) for e in each if e) / 5, rel=1e-5)
    right = [[logits[i, j, 1:-1].argmax() + 1 == target[i, j] for j in some] for i, some in enumerate(chosen)]
    assert numbers["accuracy"].item() == pytest.approx(sum(np.mean(r) for r in right if r) / 5)


def test_masked_genes_can_count_alike_as_in_the_code():
    net, (tokens, genes) = transformer(), tokens_of()
    tokens[1, 3:] = 0  # a shallow cell counts less
    read, target = scbert.mask_tokens(tokens, 5, torch.rand(2, 5, 12), share=0.5)
    loss, numbers = pretrain_step(net, read, genes, target, weigh="genes")
    logits, chosen = net(read, genes), target != -100
    assert torch.allclose(loss, cross_entropy(logits[chosen], target[chosen]))
    assert numbers["accuracy"] == (logits[chosen][:, 1:-1].argmax(1) + 1 == target[chosen]).float().mean()
    assert not torch.allclose(loss, scbert.masked_step(net, read, genes, target)[0])
    assert pretrain_step(net, read, genes, torch.full_like(target, -100), weigh="genes")[0] == 0


def test_the_published_recipe_runs():
    """In small: its batches, updates, loss, schedule and features; sizes and passes are cut."""
    small = {"dim": 8, "depth": 2, "heads": 2, "width": 4, "epochs": 2, "fit_epochs": 2, "n_features": 6, "redraw": 4}
    model, cells = scbert.ScBERT(**scbert.PUBLISHED | small | {"bins": 9}, random_state=0), example_cells(counts=True)
    rows = model.pretrain(cells).fit(cells).pretrained_["history"].rows
    assert [row["lr"] for row in rows] == [warm_restarts(1, 1e-4), warm_restarts(2, 1e-4)]
    assert len(model.predict(cells)) == 60


def test_features_are_drawn_again_by_their_period_alone():
    net, other = transformer(attention=FavorAttention), transformer(attention=FavorAttention)
    first = net.blocks[0].attention.features.clone()
    batch = (*tokens_of(), tokens_of()[0])
    pretrain_step(net, *batch, 0)
    assert torch.equal(net.blocks[0].attention.features, first)
    for period in (1, 2):
        pretrain_step(net, *batch, period)
    pretrain_step(other, *batch, 2)
    assert torch.equal(net.blocks[1].attention.features, other.blocks[1].attention.features)
    assert not torch.equal(net.blocks[0].attention.features, first)


def test_the_learning_rate_restarts_after_15_25_45_and_85_epochs():
    rates = [warm_restarts(epoch, 1e-4) for epoch in range(1, 172)]
    lows = [i for i, rate in enumerate(rates) if rate == 1e-6]
    assert lows == [0, 15, 40, 85, 170]
    assert [max(rates[a:b]) for a, b in pairwise(lows)] == pytest.approx([1e-4 * 0.9**c for c in range(4)])
    assert rates[1] == pytest.approx(1e-6 + 99e-6 / 5) and rates[10] == pytest.approx(1e-6 + 99e-6 / 2)


# Scores of genes.


def test_attention_received_is_the_sum_over_queries():
    q, k = drawn(2, 3, 300, 4), drawn(2, 3, 300, 4, seed=1)
    weights = (q @ k.mT / 2).softmax(-1)
    with torch.no_grad():
        found = scores.received(attention.exact_attention, q, k)
    assert torch.allclose(found, weights.sum(2).mean(1), atol=1e-4)
    W, eye = attention.orthogonal_features(6, 4), torch.eye(300).expand(2, 3, 300, 300)
    for stabilizer in ("head", "global"):
        kernel = attention.favor_attention(q, k, eye, W, stabilizer)
        for favor in (attention.favor_attention, attention.chunked_favor):
            found = scores.received(lambda q, k, v, f=favor, s=stabilizer: f(q, k, v, W, s), q, k)
            assert torch.allclose(found, kernel.sum(2).mean(1), atol=1e-3)


def typed_net(seed=0):
    torch.manual_seed(seed)
    return PooledNet(transformer(), "mean", 3)


def test_integrated_gradients_are_complete_and_captums():
    net, (tokens, genes) = typed_net(), tokens_of()
    target = torch.tensor([0, 1, 2, 0, 1])
    found = scores.integrated_gradients(net, tokens, genes, target, steps=50, tolerance=0.05)
    with torch.no_grad():
        end, start = net(tokens, genes), net(torch.zeros_like(tokens), genes)
    assert torch.allclose(found.sum(1), (end - start).gather(1, target[:, None])[:, 0], atol=1e-3)
    assert not found[tokens == 0].any(), "a gene that is not expressed adds nothing"
    with pytest.raises(DataError, match="raise steps"):
        scores.integrated_gradients(net, tokens, genes, target, steps=1, tolerance=1e-6)
    captum = pytest.importorskip("captum.attr", reason="install the extra explain")
    x, x0 = (net.transformer.embed(t, genes).detach() for t in (tokens, torch.zeros_like(tokens)))
    of = captum.IntegratedGradients(lambda x: after(net, x, genes[:1].expand(len(x), -1)))
    wanted = of.attribute(x, x0, target, n_steps=50, method="riemann_middle").sum(-1)[:, :-1]
    assert torch.allclose(found, wanted.float(), atol=1e-4)


def test_every_cell_gets_the_steps_that_its_scores_need():
    """A network that was trained hard is rough between no expression and the cell's own: 32 steps miss its logits."""
    cells = example_cells(counts=True)
    model = scbert.ScBERT.example().model.set_params(fit_epochs=60, fit_lr=3e-3, unfreeze="all").fit(cells)
    few = cells[:20].copy()
    with pytest.raises(DataError, match="raise steps"):
        model.gene_scores(few, steps=32)
    found = model.gene_scores(few)
    tokens, genes = model.rows(few.X, CPU)
    logits = [model.network_(part, genes).detach() for part in (tokens, torch.zeros_like(tokens))]
    types = logits[0].argmax(1, keepdim=True)
    wanted = (logits[0] - logits[1]).gather(1, types)[:, 0].numpy()
    assert (np.abs(found.sum(1) - wanted) <= 0.0101 * np.abs(found).sum(1)).all()
    alone = model.gene_scores(few[:1].copy())
    assert np.allclose(alone, found[:1], atol=1e-3), "the steps of a cell depend on no other"


@pytest.mark.parametrize("by", ["gradients", "attention"])
def test_genes_outside_the_sequence_score_zero(by):
    cells = example_cells(counts=True)
    model = clone(scbert.ScBERT.example().model).set_params(length=8).fit(cells)
    found = model.gene_scores(cells, by)
    assert found.shape == cells.shape and ((found != 0).sum(1) <= 8).all() and np.isfinite(found).all()
    if by == "gradients":
        assert not found[cells.X == 0].any() and found[:, :15].sum() > 2 * np.abs(found[:, 15:]).sum()


# Fine-tuning.


@pytest.mark.parametrize(("unfreeze", "frozen"), [("last", 2), ("second_to_last", 1), ("all", 0), ("head", 3)])
@pytest.mark.parametrize("head", ["genes", "last"])
def test_what_is_frozen_stays(unfreeze, frozen, head):
    torch.manual_seed(0)
    net = scbert.GeneTransformer(torch.randn(12, 8), depth=3, heads=2, width=4)
    net = scbert.CellTypeNet(net, 3) if head == "genes" else PooledNet(net, head, 3)
    assert finetuning.freeze(net, unfreeze) == frozen and not net.transformer.genes.weight.requires_grad
    trained = {i for i, b in enumerate(net.transformer.blocks) if next(b.parameters()).requires_grad}
    assert trained == {"last": {2}, "second_to_last": {1}, "all": {0, 1, 2}, "head": set()}[unfreeze]
    tokens, genes = tokens_of()
    x = net.transformer.blocks[:frozen](net.transformer.embed(tokens, genes))
    assert torch.allclose(AfterPrefix(net, frozen)(x, genes), net(tokens, genes), atol=1e-6)


@pytest.mark.parametrize("attention", ["exact", "favor"])
@pytest.mark.parametrize("unfreeze", ["last", "head"])
def test_frozen_blocks_computed_once_change_nothing(attention, unfreeze):
    cells, start = example_cells(counts=True), scbert.ScBERT.example().model
    start.set_params(attention=attention, unfreeze=unfreeze, fit_epochs=4, patience=3, fit_lr=1e-3)
    cached, anew = (clone(start).set_params(cache_gib=gib).fit(cells) for gib in (1.0, 0.0))
    apart = (cached.history_.frame() - anew.history_.frame()).abs().max().max()
    assert 0 <= apart < 1e-4 and np.allclose(cached.predict_proba(cells), anew.predict_proba(cells), atol=1e-4)


def test_held_out_rows_can_be_given():
    """They stop the training and nothing is learned from them, whatever their labels."""
    cells = example_cells(counts=True)
    types, held = cells.obs["cell_type"].to_numpy(str), np.arange(0, 60, 5)
    start = scbert.ScBERT.example().model.set_params(fit_epochs=4, patience=4)
    found = clone(start).fit(cells, types, held=held)
    assert {"val_loss", "val_accuracy"} <= {*found.history_.rows[0]}
    other = types.copy()
    other[held] = np.roll(types[held], 1)
    losses = [clone(start).fit(cells, t, held=held).history_.frame() for t in (types, other)]
    assert losses[0]["loss"].equals(losses[1]["loss"]) and not losses[0]["val_loss"].equals(losses[1]["val_loss"])
    assert "val_loss" not in clone(start).fit(cells, types, held=held[:0]).history_.rows[0]
    for bad, said in (([60], "from 0 to 59"), ([-1], "from 0 to 59"), ([0.5], "whole numbers")):
        with pytest.raises(DataError, match=said):
            clone(start).fit(cells, types, held=bad)
    with pytest.raises(DataError, match=f"no cell of {types[0]}"):
        clone(start).fit(cells, types, held=np.flatnonzero(types == types[0]))


def test_a_depth_of_one_has_no_second_to_last_block():
    model = scbert.ScBERT.example().model.set_params(depth=1, unfreeze="second_to_last")
    with pytest.raises(SettingError, match="needs two blocks"):
        model.fit(example_cells(counts=True))


def test_a_network_of_other_settings_is_refused():
    model = scbert.ScBERT.example().model.pretrain(example_cells(counts=True))
    with pytest.raises(SettingError, match="set them back"):
        model.set_params(dim=8).fit(example_cells(counts=True))


# Pre-training.


def test_pretraining_beats_the_most_common_bin_where_genes_go_together():
    """A gene's partner tells its bin: no rule that looks at one gene alone can know it."""
    rng = np.random.default_rng(0)
    high = rng.random((300, 6)).argsort(1) < 3
    X = np.repeat(np.where(high, 12.0, 2.0), 2, axis=1).astype(np.float32)
    how = {"dim": 16, "depth": 2, "heads": 2, "width": 8, "target_sum": 84, "mask": 0.1}
    model = scbert.ScBERT(**how, gene_vectors="random", epochs=25, lr=1e-2, batch_size=20, random_state=0)
    model.pretrain(X[:200])
    found = model.masked_scores(X[200:])
    rules = [found[f"most_common{of}"] for of in ("", "_of_gene", "_of_cell")]
    assert found["network"] > 0.85 > 0.6 > max(rules), found


def test_depth_alone_tells_the_bin_where_all_genes_of_a_cell_have_one_count():
    """The rule of the cell is right, and those of all cells and of the gene are not."""
    X = np.ones((64, 30), np.float32)
    X[::2, 12:] = 0  # the shallow half: one count is a higher bin there
    model = scbert.ScBERT(dim=8, depth=1, heads=1, width=8, epochs=1, target_sum=60, random_state=0).pretrain(X)
    found = model.masked_scores(X)
    assert found["most_common_of_cell"] == 1 and max(found["most_common"], found["most_common_of_gene"]) < 0.6, found


def test_a_table_of_genes_and_cells_is_right_where_neither_alone_is():
    """Genes of two levels in cells of two depths: the network, hardly trained, is not asked."""
    X = np.ones((64, 30), np.float32)
    X[:, ::3] = 4
    X[::2, 12:] = 0
    model = scbert.ScBERT(dim=8, depth=1, heads=1, width=8, epochs=1, target_sum=120, random_state=0).pretrain(X)
    found = model.masked_scores(X)
    assert found["most_common_of_gene_in_cell"] == 1
    assert max(found[f"most_common{of}"] for of in ("", "_of_gene", "_of_cell")) < 0.8, found


def test_tokens_are_counted_by_the_most_common_bin_of_the_cell():
    tokens = torch.tensor([[1, 1, 2, 0], [2, 2, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0]])
    counts = scbert.pretraining.token_counts(tokens, 2)
    assert counts.shape == (4, 3, 2) and counts[0].tolist() == [[1, 0], [2, 0], [0, 1]]
    assert counts.sum((1, 2)).tolist() == [4] * 4, "a cell without expression counts among those of bin 1"


def counts_file(path, n=50, genes=20, seed=0):
    cells = example_cells(n, genes, counts=True, seed=seed)
    cells.X = sparse.csr_matrix(cells.X)
    cells.write_h5ad(path)
    return path


def test_a_stream_gives_every_cell_once_a_pass_and_goes_on_anywhere(tmp_path):
    stream = Stream(counts_file(tmp_path / "cells.h5ad"))
    tokenizer = scbert.Tokenizer(20, target_sum=40, length=12)
    batches = CellBatches(stream, tokenizer, 8, seed=3, device=CPU, steps=3)
    whole = [b for epoch in range(1, 6) for b in batches(epoch)]
    assert len(whole) == 15 and [len(b[0]) for b in whole] == [n for e in range(1, 6) for n in batches.sizes(e)]
    assert [len(b[0]) for b in whole[:7]] == [8] * 6 + [2], "a pass of fifty cells"
    for a, b in zip(whole[9:12], batches(4), strict=True):
        assert all(map(torch.equal, a, b))
    for i, batch in enumerate(batches(4)):
        halves = [list(batches(4, rank, 2))[i] for rank in (0, 1)]
        assert all(torch.equal(torch.cat(parts), one) for parts, one in zip(zip(*halves), batch))


def test_a_stream_and_a_table_pretrain_alike(tmp_path):
    stream = Stream(counts_file(tmp_path / "cells.h5ad"))
    model = scbert.ScBERT.example().model.set_params(steps=3, epochs=4, length=12)
    model.pretrain(stream)
    assert model.pretrained_["genes"] == list(stream.genes) and len(model.pretrained_["history"].rows) == 4
    with pytest.warns(DataWarning, match="look logged"):
        clone(model).set_params(epochs=1).pretrain(Stream(tmp_path / "cells.h5ad", transform=np.log1p))


def test_progress_is_saved_by_the_clock(tmp_path, monkeypatch):
    from shared.train import loop

    written = []
    monkeypatch.setattr(loop, "save_checkpoint", lambda path, state, _: written.append(len(state["history"]["rows"])))
    model = scbert.ScBERT.example().model.set_params(steps=1, epochs=5, checkpoint=tmp_path / "c")
    model.set_params(checkpoint_seconds=3600).pretrain(example_cells(counts=True))
    assert written == [5], "the last epoch is always saved"
    model.set_params(checkpoint_seconds=None).pretrain(example_cells(counts=True))
    assert written[1:] == [1, 2, 3, 4, 5]


SCRIPT = """
import os, sys, warnings
from shared.methods.base import example_cells
from shared.methods.scbert import ScBERT
from tests.train.test_fit import digest

warnings.simplefilter("ignore")
how = {"attention": "favor", "redraw": 2, "length": 12, "epochs": 3, "batch_size": 9, "fit_epochs": 3}
def run():
    model = ScBERT(dim=16, depth=2, heads=2, width=8, target_sum=40, **how, device="cpu", random_state=0)
    model.pretrain(example_cells(31, counts=True)).fit(example_cells(counts=True))
    return model.pretrained_["history"], model.history_
launched = {name: os.environ.pop(name) for name in ("RANK", "WORLD_SIZE")}
alone = run()
os.environ.update(launched)
together = run()
for a, b in zip(alone, together):
    assert (a.frame() - b.frame()).abs().max().max() < 1e-4, (a.frame(), b.frame())
open(os.path.join(sys.argv[1], "rank " + os.environ["RANK"]), "w").write(repr([h.rows for h in together]))
"""


@pytest.mark.slow
@pytest.mark.nightly  # shares are tested above, and processes with the loop
def test_two_processes_have_the_losses_of_one(torchrun):
    torchrun(SCRIPT)


@pytest.mark.parametrize("how", [{"attention": "favor", "stabilizer": "global"}, {"weigh": "genes"}])
def test_a_loss_that_couples_cells_is_not_shared(how):
    from shared.train import TrainingError

    model = scbert.ScBERT.example().model.set_params(**how, devices=2)
    with pytest.raises(TrainingError, match="no mean over the rows"):
        model.pretrain(example_cells(counts=True))


# What comes out.


def test_cells_that_are_like_no_type_are_rejected():
    model, cells = scbert.ScBERT.example().model, example_cells(counts=True)
    model.set_params(fit_lr=1e-3, fit_epochs=6)  # trained to the end it is sure of everything
    new = (cells.obs["cell_type"] == "T").to_numpy()
    rejected = model.fit(cells[~new].copy()).set_params(unknown=0.9).predict(cells) == "unknown"
    assert rejected[new].mean() > rejected[~new].mean() + 0.2


@pytest.mark.parametrize("head", ["genes", "mean", "last"])
@pytest.mark.parametrize("binning", ["truncate", "quantile"])
def test_every_head_learns(head, binning):
    cells = example_cells(counts=True)
    model = scbert.ScBERT.example().model.set_params(head=head, binning=binning, fit_epochs=20)
    assert model.fit(cells).score(cells) > 0.7
    found = [model.transform(cells, pool=pool) for pool in ("mean", "last")]
    assert found[0].shape == found[1].shape == (60, 16) and not np.allclose(*found)


def test_the_steps_of_the_lesson_are_those_of_the_package():
    net, (tokens, genes) = typed_net(), tokens_of()
    types = torch.tensor([0, 1, 2, 0, 1])
    assert torch.equal(scbert.classify_step(net, tokens, genes, types), cross_entropy(net(tokens, genes), types))
