"""Test cells are never learned from, arms get the same cells, values computed by hand, and claims that can fail."""

import functools
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chapters"))

from chapter_rules import claim_holds

from book import notebooks
from shared.data.errors import DataError
from shared.methods.scbert import estimator
from shared.methods.scbert.tokens import Tokenizer
from shared.studies import run
from shared.studies import scbert as study
from shared.studies.scbert import arms, beyond, blood, checks

TINY = {"dim": 8, "width": 4, "length": 16, "fit_epochs": 6}
LEARN = functools.partial(study.pretrained, epochs=2, sizes=TINY, fit_length=24)


@pytest.fixture(scope="module")
def cells():
    return study.logs(study.simulated(n_cells=60, n_genes=60, labels=3, depth=300, effect=2.0)[0])


@pytest.fixture(scope="module")
def parts(cells):
    return {task: study.split(cells, 0, task=task, n_genes=40) for task in study.TASKS}


@pytest.fixture(scope="module")
def learned(parts):
    return LEARN(parts[study.SORTED], 0)


def rows_of(X):
    return {tuple(row) for row in X.toarray().round(5)}


def test_test_cells_are_not_learned_from(cells, parts):
    for task, part in parts.items():
        asked, known = rows_of(part.test.X[:, part.chosen]), rows_of(part.corpus)
        assert asked.isdisjoint(known) and rows_of(part.train.X[:, part.chosen]) <= known, task
    other = study.split(cells, 1, task=study.SORTED, n_genes=40)
    assert rows_of(other.test.X) != rows_of(parts[study.SORTED].test.X), "a new split"
    again = study.split(cells, 1, task=study.OTHER, n_genes=40)
    assert rows_of(again.test.X) == rows_of(parts[study.OTHER].test.X) == rows_of(cells[study.OTHER][0].X)
    assert set(again.test.groups) == {"lane 0", "lane 1", "lane 2"}


def test_test_cells_have_no_say_in_the_genes(cells, parts):
    kept = parts[study.OTHER]
    one, names = cells[study.OTHER]
    changed = cells | {study.OTHER: (one._replace(X=one.X[:, ::-1].tocsr()), names)}
    assert study.split(changed, 0, task=study.OTHER, n_genes=40).genes == kept.genes


def test_a_gene_of_one_type_varies_beyond_depth_and_chance():
    rng = np.random.default_rng(0)
    mean = np.ones((200, 20))
    mean[:100, 0] = 5  # of one type
    mean[:, 1] = 20  # much, and in all alike
    counts = rng.poisson(mean)
    logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    found = blood.residual_variance(logs)
    assert found.argmax() == 0
    np.testing.assert_allclose(found, blood.residual_variance(sparse.csr_matrix(logs)), rtol=1e-6)


def test_types_of_two_sets_are_those_that_both_have(cells):
    one, names = cells["pbmc3k"]
    kinds = np.unique(one.y)
    lacking = cells | {"pbmc3k": (one.at(np.flatnonzero(one.y != kinds[0])), names)}
    found = study.split(lacking, 0, task=study.UNSORTED, n_genes=40)
    assert set(found.train.y) == set(found.test.y) == {*kinds[1:]}
    whole = cells[study.SORTED][0]
    assert found.corpus.shape[0] == len(whole.y) + sum(len(cells[n][0].y) for n in blood.SMALL), "all types, unseen"
    assert len(found.train.y) == (whole.y != kinds[0]).sum()


def test_files_are_needed_and_named(tmp_path):
    with pytest.raises(DataError, match="pbmc_zheng_facs_3774 and pbmc3k_2638 are in no folder"):
        study.of_files([tmp_path / "pbmc.h5ad"], None)


def test_draws_of_labels_are_nested_and_of_all_types():
    y = np.repeat(["a", "b", "c"], [50, 20, 3])
    small, half, whole = (blood.draw(y, share, 0) for share in (0.1, 0.5, 1))
    assert set(small) < set(half) < set(whole) and len(whole) == 73
    assert pd.Series(y[small]).value_counts().to_dict() == {"a": 5, "b": 2, "c": 1}
    assert set(blood.draw(y, 0.1, 1)) != set(small)


def test_regressions_train_on_the_cells_that_networks_train_on(learned, monkeypatch):
    seen, real = [], estimator.parted

    def spy(*args):
        seen.append(real(*args))
        return seen[-1]

    monkeypatch.setattr(estimator, "parted", spy)
    y = learned.split.train.y
    arms.fitted(learned, study.SCRATCH, 1e-3, np.arange(len(y)), 5)
    for mine, theirs in zip(arms.parts_of(y, 5), seen[0], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert {len(tries) for tries in study.TRIES.values()} == {4} and {*study.TRIES} == {
        *study.NETWORKS,
        *study.REGRESSIONS,
    }


def test_a_killed_pre_training_goes_on(parts, learned, tmp_path, monkeypatch):
    from shared.train import loop

    whole, real = LEARN(parts[study.SORTED], 0, progress_in=tmp_path), loop.save_checkpoint
    for name in ("named", "nameless"):
        states = [getattr(one, name).pretrained_["state"] for one in (whole, learned)]
        assert all((states[0][key] == states[1][key]).all() for key in states[0])
    for path in tmp_path.iterdir():
        path.unlink()

    def killed(*args):
        real(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(arms, "SAVED_EVERY", 1e-9)
    monkeypatch.setattr(loop, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        LEARN(parts[study.SORTED], 0, progress_in=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1, "one epoch of the first"
    monkeypatch.setattr(loop, "save_checkpoint", real)
    again = LEARN(parts[study.SORTED], 0, progress_in=tmp_path)
    assert len(again.named.pretrained_["history"].rows) == 2 and again.cpu[study.PRETRAINED] > 0
    state = again.named.pretrained_["state"]
    assert all((state[key] == value).all() for key, value in learned.named.pretrained_["state"].items())


def test_what_the_networks_start_with(learned):
    states = {arm: arms.network(learned, arm, 1e-3, 0) for arm in study.NETWORKS}
    assert not hasattr(states[study.SCRATCH], "pretrained_")
    first = {arm: one.pretrained_["state"] for arm, one in states.items() if arm != study.SCRATCH}
    vectors = {arm: state["genes.weight"].numpy() for arm, state in first.items()}
    np.testing.assert_array_equal(vectors[study.PRETRAINED][:-1], learned.vectors)
    np.testing.assert_array_equal(vectors[study.CONTROL][:-1], learned.vectors)
    assert not vectors[study.NAMELESS].any() and learned.vectors.any()
    blocks = [name for name in first[study.CONTROL] if name.startswith("blocks")]
    assert all((first[study.CONTROL][n] == first[study.NAMELESS][n]).all() for n in blocks)
    assert any((first[study.CONTROL][n] != first[study.PRETRAINED][n]).any() for n in blocks)
    assert not learned.nameless.pretrained_["state"]["genes.weight"].any(), "a control does not change what it copies"
    fit, _, _ = arms.fitted(learned, study.SCRATCH, 1e-3, np.arange(30), 0)
    np.testing.assert_array_equal(fit.network_.transformer.genes.weight[:-1].numpy(), learned.vectors)


def test_a_value_is_chosen_by_held_out_labels_of_the_smallest_share(learned, monkeypatch):
    asked, real = [], arms.fitted

    def spy(learned, arm, value, rows, seed, **how):
        model, _, cpu = real(learned, arm, value, rows, seed, **how)
        asked.append((arm, value, len(rows)))
        return model, abs(value - 0.3), cpu

    monkeypatch.setattr(arms, "fitted", spy)
    rows = pd.DataFrame(arms.label_rows(learned, 0, (1.0, 0.6), arms=(study.L1,)))
    few, most = rows["labels"].astype(int)
    assert asked == [*((study.L1, C, few) for C in (0.1, 0.3, 1.0, 3.0)), (study.L1, 0.3, most)]
    assert (rows["value"] == 0.3).all() and most == len(learned.split.train.y)


def test_markers_by_hand():
    scores, level = np.array([9.0, 8, 1, 2, 3, 0]), np.array([5.0, 1, 5, 5, 1, 1])
    found = beyond.found_markers(scores, level, list("abcdef"), ("a", "e", "z"), top=2, near=2)
    # a is among the top two, e is not; genes expressed as a: c, d, neither there; as e: b, there, and f.
    assert found == (0.5, 0.25, 2)
    assert beyond.found_markers(scores, level, list("abcdef"), ("z",))[2] == 0


def test_markers_of_a_type_are_found_by_regression(learned, monkeypatch):
    """A planted gene of one type; the other scores are there, and alike over runs."""
    kind, done = np.unique(learned.split.test.y)[0], {}
    arms.label_rows(learned, 0, (1.0,), (study.PRETRAINED, study.SCRATCH, study.L1, study.L2), done)
    mine = learned.split.test.X[learned.split.test.y == kind][:, learned.split.chosen].toarray().mean(0)
    best = learned.split.genes[int((done[study.L2][0].coef_[0] * mine).argmax())]
    monkeypatch.setitem(beyond.MARKERS, kind, (best, "not a gene"))
    rows = pd.DataFrame(beyond.marker_rows(learned, 0, done, cells=3, top=1)).set_index("arm")
    assert rows.loc["coefficients, L2 regression", "found"] == 1 and (rows["markers"] == 1).all()
    plain = study.expression_rows(learned.split, 0)
    assert [row["type"] for row in plain] == [kind] and plain[0]["markers"] == 1
    assert len(rows) == 10 and rows["found"].isin([0, 1]).all() and rows["chance"].between(0, 1).all()


def test_means_and_intervals_by_hand():
    rows = pd.DataFrame({
        "arm": ["a", "b"] * 4, "seed": [0, 0, 0, 0, 1, 1, 1, 1], "group": ["x", "x", "y", "y"] * 2,
        "accuracy": [0.9, 0.5, 0.7, 0.5, 0.8, 0.6, 0.8, 0.5], "cpu": [10.0, 1] * 4, "cpu_tries": [10.0, 1] * 4,
    })  # fmt: skip
    got = study.gain(rows, "a", "b")
    assert got.value == pytest.approx(0.275) and got.n == 2  # 0.3 and 0.25
    lanes = study.by_groups(rows, "a", "b")
    assert lanes.value == pytest.approx(0.275) and lanes.n == 2  # 0.3 and 0.25 again, of other cells
    rows.loc[[0, 2], "accuracy"] = [1.0, 0.8]
    got, lanes = study.gain(rows, "a", "b"), study.by_groups(rows, "a", "b")
    assert got.high - got.low != pytest.approx(lanes.high - lanes.low)
    assert study.wider(rows, "a", "b") == got
    assert study.wider(rows, "a", "b", groups=rows) == max(got, lanes, key=lambda one: one.high - one.low)
    before = pd.DataFrame({"arm": ["a", "a"], "seed": [0, 1], "cpu": [20.0, 20]})
    assert study.cost_ratio(rows, before, "a", "b").value == pytest.approx(20)
    assert study.cost_ratio(rows, before, "b", "a").value == pytest.approx(0.1)


def test_more_patience_never_raises_the_held_out_loss(parts):
    got = study.longer(parts[study.SORTED], 0, 1.0, sizes=TINY | {"fit_epochs": 12, "patience": 1}, fit_length=24)
    assert got["loss"] <= 0 and -1 <= got["accuracy"] <= 1
    same = study.longer(parts[study.SORTED], 0, 1.0, sizes=TINY | {"patience": 20}, fit_length=24)
    assert same == {"loss": 0, "accuracy": 0}


def test_counts_without_pairs_are_the_table_that_networks_are_held_against(learned, monkeypatch):
    """By the same masks of the same cells, so rows may stand in one table."""
    monkeypatch.setattr(checks, "WEIGHTS", (0.0,))
    monkeypatch.setattr(checks.guesses, "__defaults__", ((0.0,),))
    own = {row["group"]: row["masked"] for row in checks.pair_rows(learned.split, 3, TINY)}
    rows = pd.DataFrame(beyond.masked_rows(learned, 3)).set_index(["arm", "group"])["masked"]
    assert own == pytest.approx(rows["most_common_of_gene_in_cell"].to_dict())


def test_odds_by_hand():
    tokens = np.array([[1, 1, 2], [1, 1, 2], [2, 2, 2], [2, 2, 1]])
    tokenizer = Tokenizer(3, bins=2, logged=True)
    table, pairs = checks.counted(tokens * np.log(2) + 1e-3, tokenizer)
    assert pairs[0, 1, 1, 1] == 2 and pairs[0, 2, 2, 1] == 1 and pairs[0, 2, 1, 1] == 0
    # Gene 0 in cells whose most common bin is 1: 1 in both, and 1 and 2 alike in all; as two cells more.
    np.testing.assert_allclose(table[0, :, 0], [3 / 4, 1 / 4])
    got = checks.log_odds(table, pairs, np.array([3, 1, 2]), np.arange(3), np.array([True, False, False]))
    np.testing.assert_allclose(got[0], np.log([[3 / 4 + 1 / 400, 1 / 4 + 1 / 400]]))
    one, two = 2.5 / 5.5, 3.5 / 5.5  # shares of gene 1's token 1 and of gene 2's token 2
    by_bin = [(2 + 2 * one) / 4 * (2 + 2 * two) / 4, (0 + 2 * one) / 4 * (1 + 2 * two) / 4]
    np.testing.assert_allclose(got[1], np.log([by_bin]), rtol=1e-6)


def planted(together, seed=0):
    """Forty genes whose bins are drawn for each pair of genes together, or for each gene alone."""
    rng = np.random.default_rng(seed)
    bins = rng.integers(1, 4, (400, 20 if together else 40))
    X = sparse.csr_matrix((np.repeat(bins, 2, 1) if together else bins) * np.log(2) + 1e-3, dtype=np.float32)
    test = blood.Cells(X[300:], np.full(100, "a"), np.full(100, "b"))
    return blood.Split(X[:300], test, test, np.arange(40), [*map(str, range(40))])


def test_pairs_are_counted_where_there_are_any():
    whole = TINY | {"length": 40}
    (found,), (none,) = (checks.pair_rows(planted(t), 0, whole) for t in (True, False))
    assert found["masked"] > 0.8 and found["value"] > 0
    assert none["masked"] == pytest.approx(1 / 3, abs=0.08), "bins of other genes say nothing"


def test_test_cells_do_not_weigh_the_pairs():
    one = planted(True)
    empty = one._replace(test=one.test._replace(X=planted(False).test.X))
    (mine,), (other,) = (checks.pair_rows(split, 0, TINY | {"length": 40}) for split in (one, empty))
    assert mine["value"] == other["value"] and mine["masked"] > other["masked"]


def test_a_regression_reads_what_a_network_reads(learned):
    split = learned.split
    seen, lost = checks.as_read(split, 24)
    whole, read = split.test.X[:, split.chosen].toarray(), seen.test.X.toarray()
    n = (whole > 0).sum(1)
    np.testing.assert_array_equal((read > 0).sum(1), np.minimum(n, 24))
    assert (read[read > 0] == whole[read > 0]).all() and seen.train.X.shape == (len(split.train.y), 40)
    assert lost == {"over": (n > 24).mean(), "cut": pytest.approx(1 - np.minimum(n, 24).sum() / n.sum())}
    tokenizer = learned.named.set_params(length=24)._tokenizer(40)
    genes = tokenizer(split.test.X[:, split.chosen])[1].numpy()
    assert all(set(np.flatnonzero(row)) <= set(mine) for row, mine in zip(read, genes, strict=True))
    every, none = checks.as_read(split, 40)
    assert (every.test.X.toarray() == whole).all() and none == {"over": 0, "cut": 0}
    learned.named.set_params(length=TINY["length"])


def test_types_with_labels_are_those_that_are_left_out(learned):
    values = {study.L2: 1.0}
    own, out = (
        pd.DataFrame(rows(learned, 1, values, 1.0)).set_index("type")
        for rows in (checks.labelled_rows, beyond.unknown_rows)
    )
    assert [*own.index] == [*out.index] and own["auroc"].mean() < out["auroc"].mean(), "simulated types are told apart"


def test_what_is_checked_beside_a_study(cells):
    """As the page makes it, with types named as in blood: six, three of them T cells."""
    names = dict(zip(np.unique(cells[study.SORTED][0].y), ("CD19+ B", *checks.T_CELLS[:2]), strict=True))
    named = {
        k: (one._replace(y=np.array([names.get(y, y) for y in one.y])), genes) for k, (one, genes) in cells.items()
    }
    data = {task: functools.partial(study.parted, named, task=task, n_genes=40) for task in study.TASKS}
    for task, part in data.items():
        measure = functools.partial(study.check_rows, shares=(0.3, 1.0), task=task, sizes=TINY, lengths=(24,))
        found = run({"": study.unlearned}, {task: part}, (0,), measure, unit="seed", errors="raise")
        kinds = {"masked", "cut", "labels, at 24"} | ({"group, at 24"} if task == study.OTHER else set())
        kinds |= {"labelled", "labels, six types"} if task == study.SORTED else set()
        kinds |= {"T cells as one"} if task == study.UNSORTED else set()
        assert {*found["what"]} == kinds
    done: dict = {}
    part = study.split(named, 0, task=study.UNSORTED, n_genes=40)
    arms.label_rows(study.unlearned(part, 0), 0, (0.3, 1.0), (study.L2,), done)
    right = (done[study.L2][0].predict(part.test.X[:, part.chosen]) == part.test.y).mean()
    one = found[(found["what"] == "T cells as one") & (found["arm"] == study.L2)]
    assert one["accuracy"].item() >= right


def test_networks_are_fitted_at_the_length_that_they_are_given(learned, monkeypatch):
    lengths, real = [], arms.network

    def spy(*args):
        lengths.append((args[1], real(*args).length))
        return real(*args)

    monkeypatch.setattr(arms, "network", spy)
    monkeypatch.setattr(arms, "TRIES", dict.fromkeys(study.NETWORKS, (1e-3,)))
    rows = study.length_rows(learned._replace(fit_length=30), None, 0, shares=(1.0,))
    assert {*lengths} == {(study.PRETRAINED, 30), (study.SCRATCH, 30)}
    assert {row["what"] for row in rows} == {"labels, at 30"}


@pytest.fixture(scope="module")
def table(cells):
    """As the page makes it, of simulated cells."""
    data = {study.SORTED: functools.partial(study.parted, cells, task=study.SORTED, n_genes=40)}
    measure = functools.partial(study.all_rows, shares=(0.3, 1.0), unknown=0.5)
    return run({"": LEARN}, data, (0,), measure, unit="seed", errors="raise")


def test_every_arm_is_measured_at_every_share(table):
    labels = table[table["what"] == "labels"]
    assert labels.groupby(["arm", "share"]).size().eq(1).all() and labels["arm"].nunique() == 7
    assert labels.groupby("share")["labels"].nunique().eq(1).all(), "the same number of labels for all"
    unknown = table[table["what"] == "unknown"]
    shares = unknown[["auroc", "known_rejected", "unknown_rejected"]].to_numpy(float)
    assert ((shares >= 0) & (shares <= 1)).all()
    assert (table.loc[table["what"] == "pre-training", "cpu"] > 0).all()


# Each claim fails on data where it is false, by the page's own functions.


@pytest.fixture(scope="module")
def claims():
    front = notebooks.front_matter(next(p for p in notebooks.pages(["scbert-study"], drafts=True)))
    return {claim["id"]: claim for claim in front["claims"]}


def fails(claim, found):
    return bool(claim_holds(claim, {claim["metric"]: {"value": found.value, "low": found.low, "high": found.high}}))


def test_without_training_masked_genes_are_no_better_than_the_rule(parts, claims):
    idle = functools.partial(study.pretrained, epochs=1, sizes=TINY | {"lr": 1e-9}, fit_length=24)
    rows = pd.concat(
        [pd.DataFrame(beyond.masked_rows(idle(parts[study.OTHER], seed), seed)).assign(seed=seed) for seed in (0, 1)]
    )
    for claim, rule in (("rule", "most_common_of_gene"), ("table", "most_common_of_gene_in_cell")):
        assert fails(claims[claim], study.gain(rows, study.PRETRAINED, rule, "masked")), claim
    assert fails(claims["names"], study.gain(rows, study.PRETRAINED, study.NAMELESS, "masked"))


def test_regression_loses_where_it_may_not_fit(learned, claims, monkeypatch):
    """A penalty that leaves no gene, against a network that is trained."""
    monkeypatch.setitem(arms.TRIES, study.L1, (1e-6,))
    monkeypatch.setitem(arms.TRIES, study.PRETRAINED, (1e-2,))
    one = learned._replace(named=learned.named.set_params(fit_epochs=30))
    rows = pd.concat(
        [
            pd.DataFrame(arms.label_rows(one, seed, (1.0,), (study.L1, study.PRETRAINED))).assign(seed=seed)
            for seed in (0, 1)
        ]
    )
    got = study.gain(rows, study.L1, study.PRETRAINED)
    assert got.value < 0 and fails(claims["lead"], got)


def test_a_quick_network_is_seen(claims):
    rows = pd.DataFrame({
        "arm": [study.PRETRAINED, study.L1] * 2, "seed": [0, 0, 1, 1], "cpu": [2.0, 1] * 2, "cpu_tries": [2.0, 1] * 2,
    })  # fmt: skip
    before = pd.DataFrame({"arm": [study.PRETRAINED] * 2, "seed": [0, 1], "cpu": [4.0, 4]})
    assert fails(claims["cost"], study.cost_ratio(rows, before, study.PRETRAINED, study.L1))
