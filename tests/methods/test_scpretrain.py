"""scPretrain: the numbers of the paper's recipe, each option, and that nothing leaks, drifts or is lost."""

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from torch.nn.functional import cross_entropy

from shared.data import Corpus
from shared.data.constraints import SettingError
from shared.data.errors import DataError, DataWarning
from shared.methods.scpretrain import (
    CellTypeNet,
    MultiTaskNet,
    PseudoLabeller,
    PseudoLabels,
    ScPretrain,
    batch_rows,
    cluster_step,
    finetune,
    logged,
    paper_split,
    rounds,
    transplant,
)
from shared.methods.scpretrain.finetuning import pretrained_rows
from shared.methods.torch_method import seeded
from shared.nn.sparse import Rows
from shared.train import TrainingError
from shared.train.saved import ModelError

GENES = [f"G{i}" for i in range(120)]
SMALL = (30, 15, 60)


def cells(n=120, seed=0, shift=0, kinds=4):
    """Counts with a few genes of each type's own, and a fifth of the genes never expressed; types."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, kinds, n)
    rate = np.full((kinds, len(GENES)), 0.15)
    for kind in range(kinds):
        rate[kind, kind * 10 + shift : kind * 10 + shift + 8] = 4
    rate[:, 96:] = 0
    return sparse.csr_matrix(rng.poisson(rate[y]).astype(np.float32)), np.array(list("abcd"))[y]


def corpus(*sizes, genes=GENES):
    """A stand-in with the parts of `shared.data.Corpus` that pre-training reads."""
    counts = {f"set {i}": cells(n, seed=10 + i)[0] for i, n in enumerate(sizes or (120, 90))}
    return SimpleNamespace(genes=list(genes), counts=counts, matrices={k: logged(v) for k, v in counts.items()})


def small(**options):
    return ScPretrain(
        **{"rounds": 2, "epochs": 3, "width": 16, "hidden": 8, "batches": 4, "cells_per_cluster": SMALL}
        | {"lr": 1e-2, "fit_epochs": 40, "fit_lr": 1e-2, "random_state": 0, "device": "cpu"}
        | options
    )


def annotated(n=120, seed=5, genes=GENES):
    X, y = cells(n, seed)
    return ad.AnnData(X, obs=pd.DataFrame({"cell_type": y}, [f"c{i}" for i in range(n)]), var=pd.DataFrame(index=genes))


@pytest.fixture(scope="module")
def pretrained():
    return small().pretrain(corpus())


# The network.


def fresh(squash=False, ks=((10, 20, 6), (8, 17, 5)), scale=1.0):
    torch.manual_seed(0)
    net = MultiTaskNet(len(GENES), 200, ks, squash)
    rng = np.random.default_rng(0)
    labels = [torch.as_tensor(np.stack([rng.integers(0, k, 120) for k in three], axis=1)) for three in ks]
    with torch.no_grad():
        for head in net.heads:
            head.weight.mul_(scale)
    return net, Rows([logged(cells(seed=i)[0]) for i in range(len(ks))]), labels


def test_the_first_loss_is_that_of_guessing():
    net, rows, labels = fresh()
    expected = sum(np.log(k) for three in net.ks for k in three)
    assert float(cluster_step(net, rows, labels).detach()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("k", [10, 20, 152])
def test_a_second_sigmoid_keeps_the_loss_above_a_floor(k):
    """The best a squashed head can do is 1 for the right cluster and 0 for all others."""
    floor = np.log(1 + (k - 1) / np.e)
    net, rows, _ = fresh(ks=((k, k, k),), squash=True)
    y = torch.zeros(120, 3, dtype=torch.int64)
    with torch.no_grad():
        net.heads[0].weight.zero_()
        net.heads[0].bias.fill_(-200)
        net.heads[0].bias[[0, k, 2 * k]] = 200
    assert float(cluster_step(net, rows, [y]).detach()) == pytest.approx(3 * floor, rel=1e-5)
    loose, _, _ = fresh(ks=((k, k, k),))
    loose.load_state_dict(net.state_dict())
    assert float(cluster_step(loose, rows, [y]).detach()) < 1e-6
    wild, rows, _ = fresh(squash=True, scale=1e3)
    assert all(
        part.detach().min() >= 0 and part.detach().max() <= 1 for parts in wild(rows, [120] * 2) for part in parts
    )


def test_every_data_set_weighs_alike_and_has_its_own_heads():
    net, _, labels = fresh()
    few = Rows([logged(cells(seed=0)[0])[:10], logged(cells(seed=1)[0])])
    one = Rows([logged(cells(seed=0)[0])[:10]])
    by_hand = sum(
        float(cross_entropy(p, y[: len(p), j]).detach())
        for parts_of, y in zip(net(few, [10, 120]), labels)
        for j, p in enumerate(parts_of)
    )
    assert float(cluster_step(net, few, [labels[0][:10], labels[1]]).detach()) == pytest.approx(by_hand, rel=1e-6)
    cluster_step(net, few, [labels[0][:10], labels[1]]).backward()
    both = net.heads[1].weight.grad.clone()
    net.zero_grad()
    net.ks, heads = net.ks[:1], net.heads
    cluster_step(net, one, [labels[0][:10]]).backward()
    assert heads[1].weight.grad is None or not heads[1].weight.grad.any()
    assert both.abs().sum() > 0 and heads[0].weight.grad.abs().sum() > 0


@torch.no_grad()
def test_dense_cells_give_what_sparse_ones_give():
    net, rows, labels = fresh()
    dense = float(cluster_step(net, rows.dense(), labels))
    assert dense == pytest.approx(float(cluster_step(net, rows, labels)), rel=1e-5)


def test_a_shared_head_gives_each_set_clusters_of_its_own():
    model = small(rounds=1, epochs=1, lr=1e-7, heads="shared")
    run = rounds.Pretraining(model, corpus(), 0)
    history = model.pretrain(corpus()).pretrained_["history"]
    found = {"set 0": PseudoLabels(np.zeros((120, 3), int), None, (4, 8, 3))}
    found |= {"set 1": PseudoLabels(np.ones((90, 3), int), None, (3, 6, 2))}
    _, labels = next(iter(run.batches(1, found)(1)))
    assert not labels[0].any() and labels[1].unique(dim=0).tolist() == [[5, 9, 4]]
    assert history[0]["loss"] == pytest.approx(sum(np.log([7, 14, 5])), rel=0.03)


def test_batches_are_31_steps_of_33_cells():
    steps = list(batch_rows([1000], [1000 // 30], np.random.default_rng(0)))
    assert len(steps) == 31 and [len(s[0]) for s in steps] == [33] * 30 + [10]
    assert np.array_equal(np.sort(np.concatenate([s[0] for s in steps])), np.arange(1000))


def test_an_epoch_ends_with_the_shortest_data_set():
    steps = list(batch_rows([90, 1000], [30, 30], np.random.default_rng(0)))
    assert len(steps) == 3 and all(len(b) == 30 for s in steps for b in s)
    seen = np.concatenate([s[1] for s in steps])
    assert len(set(seen)) == 90


# Pre-training.


def published(data, model, labels, seed):
    """The first round as a plain dense network: one Linear, one product a data set, three heads each, Adam."""
    genes, width, names = len(data.genes), model.width, list(data.matrices)
    run = rounds.Pretraining(model, data, seed)
    weight, bias = rounds.first_weights(data.matrices.values(), genes, width, model.start, seed)
    ks = [tuple(int(k) + 1 for k in labels[n].max(0)) for n in names]
    kept = len(run.kept)
    source = seeded(
        lambda: MultiTaskNet(kept, width, ks), int(np.random.SeedSequence((seed, 5, 1)).generate_state(1)[0])
    )
    encoder = torch.nn.Linear(genes, width)
    with torch.no_grad():
        encoder.weight.copy_(torch.from_numpy(weight).T)
        encoder.bias.copy_(torch.from_numpy(bias))
    heads = [torch.nn.Linear(width, sum(k)) for k in ks]
    for head, like in zip(heads, source.heads):
        head.load_state_dict(like.state_dict())
    optimizer = torch.optim.Adam([*encoder.parameters(), *(p for h in heads for p in h.parameters())], lr=model.lr)
    dense = [torch.from_numpy(np.log1p(data.counts[n].toarray())) for n in names]
    for epoch in range(1, model.epochs + 1):
        sizes = [len(X) for X in dense]
        rng = np.random.default_rng((seed, 6, 1, epoch))
        for rows in batch_rows(sizes, [n // model.batches for n in sizes], rng):
            loss = 0
            for X, r, head, k, n in zip(dense, rows, heads, ks, names):
                parts = head(torch.sigmoid(encoder(X[r]))).split(k, dim=1)
                y = torch.as_tensor(labels[n][r]).long()
                loss = loss + sum(cross_entropy(p, y[:, j]) for j, p in enumerate(parts))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return encoder.weight.detach().numpy().T, encoder.bias.detach().numpy(), weight


def test_a_round_is_the_published_loop():
    """Sparse, stacked, fused and without unexpressed genes; the same weights as the plain dense loop, all genes in."""
    data, model = corpus(), small(rounds=1, patience=None)
    model.pretrain(data)
    weight, bias, start = published(data, model, model.pretrained_["labels"][0], model._seed())
    np.testing.assert_allclose(model.pretrained_["weight"], weight, atol=2e-4)
    np.testing.assert_allclose(model.pretrained_["bias"], bias, atol=2e-4)
    assert np.abs(weight - start).max() > 0.05
    assert np.array_equal(model.pretrained_["weight"][96:], start[96:]), "unexpressed genes keep their first weights"


def test_pretraining_learns_the_pseudo_labels_and_says_so(pretrained):
    history = pd.DataFrame(pretrained.pretrained_["history"])
    assert list(history) == ["round", "epoch", "loss"] and history["round"].tolist() == [1, 1, 1, 2, 2, 2]
    assert history.groupby("round")["loss"].apply(lambda v: v.iloc[-1] < v.iloc[0]).all()
    labels = pretrained.pretrained_["labels"]
    assert [list(r) for r in labels] == [["set 0", "set 1"]] * 2
    assert labels[0]["set 1"].shape == (90, 3) and labels[0]["set 1"].dtype == np.int32
    assert len(pretrained.pretrained_["inertia"]) == len(pretrained.pretrained_["seconds"]) == 2


def test_later_rounds_cluster_the_code():
    data = corpus()
    seen = {}

    def after(number, model):
        seen[number] = model.pretrained_["weight"], clone(model)

    model = small(rounds=2).pretrain(data, callback=after)
    assert [len(kept.pretrained_["labels"]) for _, kept in seen.values()] == [1, 2]
    assert not np.array_equal(seen[1][0], seen[2][0])
    seed = int(np.random.SeedSequence((model._seed(), 4, 2)).generate_state(1)[0])
    wanted = (
        PseudoLabeller("embedding", SMALL, seed=seed)
        .fit_predict(seen[1][1].transform(data.counts["set 0"], genes=GENES))
        .labels
    )
    assert np.array_equal(model.pretrained_["labels"][1]["set 0"], wanted)


def test_one_seed_one_encoder_and_no_trace_in_the_global_generators(pretrained):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    wanted = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    again, other = small().pretrain(corpus()), small(random_state=1).pretrain(corpus())
    assert (torch.rand(1), np.random.rand()) == wanted  # noqa: NPY002
    assert np.array_equal(again.pretrained_["weight"], pretrained.pretrained_["weight"])
    assert not np.array_equal(other.pretrained_["weight"], pretrained.pretrained_["weight"])
    one = small(rounds=1).pretrain(corpus())
    assert again.pretrained_["history"][:3] == one.pretrained_["history"], "more rounds go on from fewer"


class OnDisk:
    """A data set that only gives the rows it is asked for, as a corpus on disk does."""

    def __init__(self, X):
        self.X, self.shape, self.most = X, X.shape, 0

    def __getitem__(self, rows):
        assert isinstance(rows, np.ndarray)
        self.most = max(self.most, len(rows))
        return self.X[rows]


def test_a_corpus_on_disk_gives_the_same_encoder(pretrained, monkeypatch):
    monkeypatch.setattr(rounds, "CHUNK", 50)
    data = corpus()
    data.matrices = {k: OnDisk(v) for k, v in data.matrices.items()}
    data.counts = {k: OnDisk(v) for k, v in data.counts.items()}
    got = small().pretrain(data)
    assert np.array_equal(got.pretrained_["weight"], pretrained.pretrained_["weight"])
    assert max(X.most for X in data.matrices.values()) <= 90


@pytest.mark.parametrize(
    "options",
    [
        {"squash": True},
        {"heads": "shared"},
        {"batch_size": 30},
        {"batches": 2},
        {"cells_per_cluster": (30,)},
        {"space": "pca"},
        {"space": "log1p"},
        {"clusterer": "minibatch"},
        {"start": "pca"},
        {"rounds": 1},
    ],
    ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()),
)
def test_each_option_changes_what_is_learned(pretrained, options):
    got = small(**options).pretrain(corpus())
    assert np.isfinite(got.pretrained_["weight"]).all()
    assert not np.allclose(got.pretrained_["weight"], pretrained.pretrained_["weight"], atol=1e-3)


def test_a_start_from_components_keeps_their_distances():
    data = corpus()
    model = small(rounds=0, start="pca").pretrain(data)
    assert model.pretrained_["history"] == []
    X = sparse.vstack(list(data.matrices.values())).toarray()
    left, values, _ = np.linalg.svd(X - X.mean(0), full_matrices=False)
    codes = np.vstack([model.transform(data.counts[n], genes=GENES) for n in data.counts])
    expected = left[:, :16] * values[:16] / values[0] * np.sqrt(len(X) - 1)
    np.testing.assert_allclose(np.abs(codes), np.abs(expected), atol=2e-2)
    assert codes[:, 0].std() == pytest.approx(1, rel=0.01)
    wide = small(rounds=0, start="pca", width=250).pretrain(data).pretrained_["weight"]
    assert wide.shape == (120, 250) and np.isfinite(wide).all() and wide[:, 249].any()


def test_early_stopping_stops_a_round():
    model = small(rounds=1, epochs=500, lr=0.2, patience=2).pretrain(corpus())
    history = pd.DataFrame(model.pretrained_["history"])
    assert len(history) < 500 and history["loss"].idxmin() == len(history) - 3


def test_a_set_met_in_pretraining_is_refused_by_its_content():
    data = corpus()

    def check_absent(adata):
        raise ValueError("this data set is in the corpus as 'set 0'")

    data.check_absent = check_absent
    model = small()
    with pytest.raises(ValueError, match="is in the corpus"):
        model.pretrain(data, test=annotated())
    assert not hasattr(model, "pretrained_")


def test_leaving_one_out_refuses_a_copy_under_another_name():
    sets = {"one": annotated(seed=1), "two": annotated(seed=2)}
    copy = sets["one"][np.random.default_rng(0).permutation(120)].copy()[:, ::-1].copy()
    copy.obs = copy.obs.set_axis([f"renamed {i}" for i in range(120)])
    data = Corpus(sets)
    with pytest.raises(ValueError, match="in the corpus as 'one'"):
        small().pretrain(data, test=copy)
    assert list(data.without(copy)) == ["two"]
    small(rounds=1).pretrain(data.without(copy), test=copy)


def test_a_corpus_in_memory_and_on_disk_train_the_same_network(tmp_path):
    sets = {"one": annotated(120, seed=1), "two": annotated(90, seed=2)}
    stand_in = SimpleNamespace(
        genes=sorted(GENES), counts={n: a[:, sorted(GENES)].X.sorted_indices() for n, a in sets.items()}
    )
    stand_in.matrices = {n: logged(X) for n, X in stand_in.counts.items()}
    inside = small().pretrain(Corpus(sets))
    assert np.array_equal(inside.pretrained_["weight"], small().pretrain(stand_in).pretrained_["weight"])
    for name, one in sets.items():
        one.write_h5ad(tmp_path / f"{name}.h5ad")
    data = Corpus({name: tmp_path / f"{name}.h5ad" for name in sets})
    outside = small().pretrain(data)
    assert np.isfinite(outside.pretrained_["weight"]).all()
    first, same = (m.pretrained_["labels"][0] for m in (outside, inside))
    assert all(np.array_equal(first[n], same[n]) for n in sets), "files are read in blocks: other batches, same labels"


@pytest.mark.parametrize(
    "options", [{}, {"random_state": 1}, {"space": "pca"}, {"cells_per_cluster": (40,)}, {"clusterer": "minibatch"}]
)
def test_folds_of_one_corpus_share_their_first_clusters_and_nothing_else(folds, options, monkeypatch):
    sets, data = folds
    alone = small(**options).pretrain(Corpus(sets).without("two"))
    small(**options).pretrain(data.without("three"))
    clustered, real = [], PseudoLabeller.fit_predict
    spy = lambda self, X: clustered.append(self.space) or real(self, X)  # noqa: E731
    monkeypatch.setattr(PseudoLabeller, "fit_predict", spy)
    shared = small(**options).pretrain(data.without("two"))
    assert np.array_equal(shared.pretrained_["weight"], alone.pretrained_["weight"])
    first = shared.pretrained_["labels"][0]
    assert all(np.array_equal(y, alone.pretrained_["labels"][0][name]) for name, y in first.items())
    assert clustered == [options.get("space", "raw"), "embedding", "embedding"], "set one was clustered before"


@pytest.fixture(scope="module")
def folds():
    sets = {name: annotated(90 + 10 * i, seed=i) for i, name in enumerate(("one", "two", "three"))}
    return sets, Corpus(sets)


# Stopped and gone on with.


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    path, data = tmp_path / "run.safetensors", corpus()
    whole = small(rounds=3).pretrain(data)

    def killed(number, model):
        if number == 2:
            raise KeyboardInterrupt

    model = small(rounds=3, checkpoint=path)
    with pytest.raises(KeyboardInterrupt):
        model.pretrain(data, callback=killed)
    rounds = []
    again = small(rounds=3, checkpoint=path).pretrain(data, callback=lambda n, m: rounds.append(n))
    assert rounds == [3]
    for key in ("weight", "bias"):
        assert np.array_equal(again.pretrained_[key], whole.pretrained_[key])
    assert again.pretrained_["history"] == whole.pretrained_["history"]
    for mine, theirs in zip(again.pretrained_["labels"], whole.pretrained_["labels"]):
        assert all(np.array_equal(mine[n], theirs[n]) for n in theirs)
    small(rounds=3, checkpoint=path).pretrain(data, callback=lambda n, m: pytest.fail("nothing was left to do"))


@pytest.mark.parametrize(
    ("options", "sizes", "said"),
    [
        ({"lr": 0.1}, (120, 90), "differs in lr"),
        ({"random_state": 1}, (120, 90), "differs in seed"),
        (
            {"squash": True, "heads": "shared"},
            (120, 90),
            r"squash \(False there, True here\), heads \('separate' there, 'shared' here\)",
        ),
        ({}, (120, 91), "differs in sets"),
        ({"rounds": 1}, (120, 90), "holds 2 rounds and rounds=1"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(tmp_path, options, sizes, said):
    path = tmp_path / "run.safetensors"
    small(checkpoint=path).pretrain(corpus())
    with pytest.raises(TrainingError, match=said):
        small(checkpoint=path, **options).pretrain(corpus(*sizes))
    path.write_bytes(b"half a file")
    with pytest.raises(TrainingError, match="damaged"):
        small(checkpoint=path).pretrain(corpus())


# From one list of genes to another.


def test_shared_genes_are_copied_and_no_others():
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    start = np.full((4, 2), -1, np.float32)
    out, shared = transplant(weight, ["a", "b", "c"], start, ["x", "c", "a", "y"])
    assert out.tolist() == [[-1, -1], [4, 5], [0, 1], [-1, -1]] and shared.tolist() == [False, True, True, False]
    out += 1
    assert weight[2].tolist() == [4, 5] and (start == -1).all()


def test_alignment_is_fast_enough_for_seventeen_thousand_genes():
    names = [f"G{i}" for i in range(21_000)]
    out, shared = transplant(np.ones((17_000, 2)), names[:17_000], np.zeros((21_000, 2)), names[::-1])
    assert shared.sum() == 17_000 and not out[0].any() and out[-1].all()


def test_lists_that_cannot_be_matched_are_refused():
    weight, start = np.ones((2, 2)), np.ones((2, 2))
    with pytest.raises(ValueError, match=r"no gene is shared.*another species"):
        pretrained_rows({"weight": weight, "genes": ["A", "B"]}, ["a", "b"], start)
    for bad in ((["A", "A"], ["A", "B"]), (["A", "B"], ["A", "A"])):
        with pytest.raises(ValueError, match="more than once"):
            pretrained_rows({"weight": weight, "genes": bad[0]}, bad[1], start)


def test_a_tuned_network_starts_from_the_borrowed_rows(pretrained):
    X, y = cells(60)
    genes = [*GENES[60:], *(f"new {i}" for i in range(60))]
    model = clone(pretrained).set_params(fit_lr=1e-12, fit_epochs=1, fit_patience=None)
    barely = model.fit(X, y, genes=genes)
    weight = barely.network_.encoder.weight.detach().numpy()
    assert barely.shared_.tolist() == [True] * 60 + [False] * 60
    np.testing.assert_allclose(weight[:60], pretrained.pretrained_["weight"][60:], atol=1e-6)
    assert np.abs(weight[60:]).max() <= 120**-0.5 and weight[60:].std() > 0
    np.testing.assert_allclose(barely.network_.encoder.bias.detach(), pretrained.pretrained_["bias"], atol=1e-6)
    alone = clone(model).set_params(use_pretrained=False).fit(X, y, genes=genes)
    assert not alone.shared_.any()
    np.testing.assert_allclose(alone.network_.encoder.weight.detach().numpy()[60:], weight[60:], atol=1e-6)


def test_tuning_leaves_the_encoder_as_it_was(pretrained):
    before = {k: pretrained.pretrained_[k].copy() for k in ("weight", "bias")}
    X, y = cells(100)
    other = clone(pretrained).fit(X, y, genes=GENES)
    assert not np.allclose(other.network_.encoder.bias.detach(), before["bias"], atol=1e-3)
    assert all(np.array_equal(pretrained.pretrained_[k], v) for k, v in before.items())
    assert np.array_equal(other.pretrained_["weight"], before["weight"])


def test_codes_of_any_list_of_genes(pretrained):
    X, _ = cells(30)
    full = pretrained.transform(X, genes=GENES)
    assert full.shape == (30, 16) and full.dtype == np.float32
    by_hand = np.log1p(X.toarray()) @ pretrained.pretrained_["weight"] + pretrained.pretrained_["bias"]
    np.testing.assert_allclose(full, by_hand, atol=1e-4)
    np.testing.assert_allclose(pretrained.transform(X[:, ::-1], genes=GENES[::-1]), full, atol=1e-4)
    with pytest.warns(DataWarning, match="no names and are taken to be the genes of the pre-training"):
        np.testing.assert_array_equal(pretrained.transform(X), full)
    with pytest.raises(DataError, match="takes genes by name"):
        pretrained.transform(X[:, :-1])
    without = X.toarray()
    without[:, :40] = 0
    np.testing.assert_allclose(
        pretrained.transform(X[:, 40:], genes=GENES[40:]), pretrained.transform(without, genes=GENES), atol=1e-4
    )


# Tuning.


def test_it_learns_the_types_from_counts_logs_arrays_and_tables(pretrained):
    X, y = cells(150, seed=3)
    new, truth = cells(100, seed=4)
    model = clone(pretrained).fit(X, y, genes=GENES)
    proba = model.predict_proba(new, genes=GENES)
    assert proba.dtype == np.float32 and np.allclose(proba.sum(1), 1, atol=1e-5)
    named = pd.DataFrame(new.toarray(), columns=GENES)
    assert model.score(named, truth) > 0.9 and (model.classes_[proba.argmax(1)] == model.predict(named)).all()
    frame = pd.DataFrame(X.toarray(), columns=GENES)
    for one, other in (
        (model, clone(pretrained).fit(frame, y)),
        (model, clone(pretrained).set_params(logged=True).fit(logged(X), y, genes=GENES)),
    ):
        inputs = logged(new) if other.logged else named
        np.testing.assert_allclose(other.predict_proba(inputs, genes=GENES), one.predict_proba(named), atol=1e-5)


def test_five_lines_on_annotated_data(tmp_path):
    mine = annotated()
    model = small().pretrain(corpus()).fit(mine, "cell_type")
    assert (model.predict(mine) == mine.obs["cell_type"]).mean() > 0.9
    mine.layers["counts"] = mine.X.copy()
    mine.X = logged(mine.X)
    again = small().pretrain(corpus()).fit(mine)
    assert np.array_equal(again.predict_proba(mine), model.predict_proba(annotated()))
    assert model.transform(mine).shape == (120, 16)


def test_small_batches_are_trained_on_too(pretrained):
    X, y = cells(150, seed=3)
    model = clone(pretrained).set_params(fit_batch_size=40, fit_epochs=15).fit(X, y, genes=GENES)
    assert (model.predict(X, genes=GENES) == y).mean() > 0.9


def test_early_stopping_judges_by_accuracy_and_keeps_the_best(pretrained):
    X, y = cells(150, seed=3)
    model = clone(pretrained).set_params(fit_epochs=400, fit_patience=4).fit(X, y, genes=GENES)
    accuracy = [row["val_accuracy"] for row in model.history_.rows]
    assert model.history_.stopped == "patience" and model.history_.best_epoch == int(np.argmax(accuracy)) + 1
    assert len(accuracy) == model.history_.best_epoch + 4
    val = np.arange(20)
    model = clone(model).fit(X, y, genes=GENES, val=val)
    assert max(r["val_accuracy"] for r in model.history_.rows) == (model.predict(X[val], genes=GENES) == y[val]).mean()
    none = clone(pretrained).set_params(validation=0, fit_epochs=3, fit_patience=1).fit(X, y, genes=GENES)
    assert len(none.history_.rows) == 3 and "val_accuracy" not in none.history_.rows[0]


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_a_scaled_start_is_centred_and_of_unit_variance(norm):
    X, y = cells(150, seed=3)
    model = small(init="scaled", norm=norm, width=100, fit_lr=1e-12, fit_epochs=1, validation=0).fit(X, y)
    codes = model.transform(X)
    assert abs(codes.mean()) < 0.01 and codes.std() == pytest.approx(1, abs=0.15)
    assert small(width=100, fit_lr=1e-12, fit_epochs=1).fit(X, y).transform(X).std() < 0.6
    assert isinstance(model.network_.norm, torch.nn.LayerNorm) == (norm == "layer")


def test_both_arms_get_the_same_cells(pretrained):
    X, y = cells(200, seed=3)
    arms, split = finetune(pretrained, X, y, genes=GENES, split_seed=4)
    assert list(arms) == ["pretrained", "scratch"] and arms["pretrained"].shared_.all()
    assert not arms["scratch"].shared_.any()
    again, same = finetune(pretrained, X, y, genes=GENES, split_seed=4, arms={"one": {"norm": "layer"}})
    assert all(np.array_equal(a, b) for a, b in zip(split, same)) and list(again) == ["one"]
    labelled = np.sort(np.concatenate([split.train, split.val]))
    val = np.isin(labelled, split.val).nonzero()[0]
    by_hand = clone(pretrained).fit(X[labelled], y[labelled], genes=GENES, val=val)
    mine, test = annotated(200, 3), pd.DataFrame(X[split.test].toarray(), columns=GENES)
    np.testing.assert_array_equal(by_hand.predict_proba(test), arms["pretrained"].predict_proba(test))
    annotated_arms, _ = finetune(pretrained, mine, split_seed=4)
    np.testing.assert_array_equal(
        annotated_arms["scratch"].predict_proba(mine[split.test]), arms["scratch"].predict_proba(test)
    )


def test_the_published_split():
    for n, sizes in ((200, (120, 20, 60)), (20_000, (1000, 1000, 18_000))):
        split = paper_split(n, 0)
        assert tuple(map(len, split)) == sizes
        assert np.array_equal(np.sort(np.concatenate(split)), np.arange(n))
    assert not np.array_equal(paper_split(200, 0).test, paper_split(200, 1).test)
    with pytest.raises(ValueError, match="9 cells cannot be split"):
        paper_split(9, 0)


# What is refused.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rounds": -1}, "rounds=-1"),
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": None}, "epochs=None"),
        ({"width": True}, "width=True"),
        ({"patience": 0}, "patience=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"lr": 0}, "lr=0"),
        ({"validation": 1}, "validation=1"),
        ({"heads": "two"}, "heads='two'"),
        ({"space": "embedding"}, "space='embedding'"),
        ({"norm": "batch"}, "norm='batch'"),
        ({"start": "zero"}, "start='zero'"),
        ({"init": "he"}, "init='he'"),
        ({"device": "gpu"}, "device 'gpu'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options, said):
    with pytest.raises((SettingError, TrainingError), match=said):
        small(**options).pretrain(corpus())
    X, y = cells(30)
    with pytest.raises((SettingError, TrainingError), match=said):
        small(**options).fit(X, y)


def test_a_corpus_that_cannot_be_clustered_is_refused():
    with pytest.raises(DataError, match="data set 'set 1': 14 cells make no cluster of 30"):
        small().pretrain(corpus(90, 14))
    with pytest.raises(DataError, match="holds no data set"):
        small().pretrain(SimpleNamespace(genes=GENES, counts={}, matrices={}))


def test_a_loss_that_is_no_number_is_said():
    data = corpus()
    data.matrices["set 0"].data[0] = np.nan
    with pytest.raises(TrainingError, match="the loss is nan at epoch 1, batch 2"):
        small().pretrain(data)


def test_cells_that_cannot_be_used_are_refused(pretrained):
    X, y = cells(40)
    bad = X.toarray()
    for change, said in ((np.nan, "NaN"), (-1, "Negative values")):
        bad[0, 0] = change
        with pytest.raises(ValueError, match=said):
            clone(pretrained).fit(bad, y, genes=GENES)
    for fit, said in (
        (lambda: clone(pretrained).fit(X[:, 1:], y), "takes genes by name"),
        (lambda: clone(pretrained).fit(X, y, genes=GENES[:-1]), "119 genes are named and X has 120"),
        (lambda: clone(pretrained).fit(X, y, genes=["G0"] * 120), "more than once"),
        (lambda: clone(pretrained).fit(X, y, genes=[g.lower() for g in GENES]), "no gene is shared"),
        (lambda: clone(pretrained).fit(X, np.repeat("a", 40), genes=GENES), "one class only"),
        (lambda: clone(pretrained).fit(X, "cell_type", genes=GENES), "no AnnData"),
        (lambda: clone(pretrained).fit(annotated(), "kind"), "obs has no column 'kind'"),
        (lambda: clone(pretrained).fit(X, y, genes=GENES, val=np.arange(40)), "val holds every cell"),
        (lambda: clone(pretrained).set_params(width=8).fit(X, y, genes=GENES), "pre-trained with width=16"),
        (lambda: small().transform(X), "nothing was pre-trained or fitted"),
        (lambda: clone(pretrained).predict(X), "not fitted"),
    ):
        with pytest.raises(ValueError, match=said):
            fit()
    log = annotated()
    log.uns["units"] = "log"
    with pytest.raises(ValueError, match="logged=True"):
        small().fit(log)
    log.obs.loc["c0", "cell_type"] = None
    with pytest.raises(ValueError, match="no label for 1 cells"):
        small(logged=True).fit(log)


# Saved and loaded.


def test_a_saved_model_comes_back(tmp_path, pretrained):
    mine = annotated()
    model = clone(pretrained).fit(mine)
    folder = model.save(tmp_path / "model")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "genes.txt", "model.safetensors"]
    for genes in (None, GENES, mine.var_names):
        back = ScPretrain.load(folder, genes)
        assert np.array_equal(back.predict_proba(mine), model.predict_proba(mine))
        assert (back.shared_ == model.shared_).all() and back.history_ == model.history_
        assert back.get_params() == model.get_params() | {"device": "auto"}
    learned, again = pretrained.pretrained_, back.pretrained_
    assert learned.keys() == again.keys() and again["genes"] == GENES
    assert all(np.array_equal(learned[key], again[key]) for key in ("weight", "bias"))
    assert all(learned[key] == again[key] for key in ("history", "inertia", "seconds", "n_genes", "is_log"))
    assert all(np.array_equal(a[n], b[n]) for a, b in zip(learned["labels"], again["labels"]) for n in a)
    encoder = clone(back)
    assert not hasattr(encoder, "network_")
    assert np.array_equal(encoder.transform(mine), pretrained.transform(mine))
    assert np.array_equal(encoder.fit(mine).predict_proba(mine), model.predict_proba(mine))
    with pytest.raises(ModelError, match="align the data first"):
        ScPretrain.load(folder, GENES[::-1])
    pretrained.save(tmp_path / "encoder")
    assert np.array_equal(ScPretrain.load(tmp_path / "encoder").transform(mine), pretrained.transform(mine))


def test_the_small_network_is_the_papers():
    shapes = [tuple(p.shape) for p in CellTypeNet(50, n_types=7).parameters()]
    assert shapes == [(50, 200), (200,), (100, 200), (100,), (7, 100), (7,)]
    five = MultiTaskNet(17_298, 200, [(10, 20, 6)] * 5)
    assert sum(p.numel() for p in five.encoder.parameters()) == 3_459_800
    assert sum(p.numel() for p in five.heads.parameters()) == 5 * 36 * 201
