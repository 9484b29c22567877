"""What pre-training is worth: the same cells for every arm, and values that can be computed by hand."""

import itertools

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from shared import evaluate
from shared.data import Corpus, DataError
from shared.methods.scpretrain import PseudoLabeller, paper_split
from shared.studies import scpretrain as study
from shared.studies.scpretrain import encoders


def test_scores_are_those_of_the_metrics():
    y, classes = np.array(["a", "b", "a", "b"]), np.array(["a", "b"])
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]])
    got = study.scores(y, proba, classes)
    assert got["accuracy"] == 0.75 and got["kappa"] == pytest.approx(0.5)
    assert got["auroc"] == evaluate.auroc(y, proba, classes) == 1


def test_clusters_are_asked_what_they_follow(sets):
    adata = sets["set 0"]
    counts, types = adata.X, adata.obs["cell_type"].to_numpy(str)
    spaces = {"raw": "raw counts", "pca": "components"}
    own = PseudoLabeller("pca", (40,), seed=1).fit_predict(counts).labels[:, 0].astype(str)
    found = study.agreement(counts, {"types": types, "clusters": own}, spaces, [0, 1], 40)
    assert list(zip(found["space"], found["seed"])) == [(name, s) for name in spaces.values() for s in (0, 1)]
    assert found["types"].iloc[3] == evaluate.ari(types, own) and found["clusters"].iloc[3] == 1
    assert found["clusters"].iloc[1] < 1


def test_own_genes_are_the_most_expressed_in_their_order():
    X = sparse.csr_matrix(np.array([[1, 0, 2, 0], [3, 0, 1, 1], [1, 5, 0, 0]], np.float32))
    adata = ad.AnnData(X, var=pd.DataFrame(index=list("abcd")), layers={"counts": X})
    assert list(study.own_genes(adata, 2).var_names) == ["a", "c"]


def test_a_budget_holds_the_cells_of_the_smaller_ones_and_none_of_the_test():
    pool, test = study.draw(100, 3)
    split = paper_split(100, 3)
    assert sorted(pool) == split.train.tolist() and list(test) == split.test.tolist()
    assert (study.draw(100, 3)[0] == pool).all() and (study.draw(100, 4)[0] != pool).any()


def test_wrong_genes_keep_the_weights_and_move_the_names(model):
    fake = study.wrong_genes(model, 0)
    assert fake.pretrained_["weight"] is model.pretrained_["weight"]
    assert sorted(fake.pretrained_["genes"]) == sorted(model.pretrained_["genes"])
    assert list(fake.pretrained_["genes"]) != list(model.pretrained_["genes"])


@pytest.mark.nightly
def test_encoders_made_in_two_processes_are_those_of_one(sets):
    """Bit for bit, and each of its own corpus and seed, whether or not first clusters were known already."""
    corpus = Corpus(sets)
    corpora = {"both": corpus, "one": corpus.without("set 0")}
    config = {"cells_per_cluster": (30, 20), "width": 4, "rounds": 2, "epochs": 2, "batches": 3, "space": "raw"}
    here = study.pretrain(corpora, config, [0, 1], space="pca")
    there = study.pretrain(corpora, config, [0, 1], workers=2, space="pca")
    assert list(here) == list(there) == [("both", 0), ("both", 1), ("one", 0), ("one", 1)]
    weights = [model.pretrained_["weight"] for model in here.values()]
    assert all((a != b).any() for a, b in itertools.combinations(weights, 2))
    for key, model in here.items():
        assert (model.random_state, model.space) == (key[1], "pca") == (there[key].random_state, there[key].space)
        np.testing.assert_array_equal(model.pretrained_["weight"], there[key].pretrained_["weight"])
        assert set(model.pretrained_["labels"][0]) == set(corpora[key[0]])


def test_regressions_read_encoders_and_the_genes_themselves(model, sets):
    adata = sets["set 0"].copy()
    adata.layers["counts"] = adata.X
    found = study.embeddings({"pre-trained": model}, adata)
    assert list(found) == ["pre-trained, logistic", "genes, logistic"]
    np.testing.assert_array_equal(found["pre-trained, logistic"], model.transform(adata))
    np.testing.assert_allclose(found["genes, logistic"], np.log1p(adata.X.toarray()), rtol=1e-6)


def test_every_arm_of_a_curve_meets_the_same_cells(model, sets, monkeypatch):
    seen = []
    for name in ("network_scores", "embedding_scores"):
        real = getattr(encoders, name)

        def spy(a, b, train, test, *rest, real=real, **more):
            seen.append((tuple(train), tuple(test)))
            return real(a, b, train, test, *rest, **more)

        monkeypatch.setattr(encoders, name, spy)
    adata = sets["set 0"]
    arms = {"one": model, "none": study.scratch(model)}
    numbers, once = {"numbers": model.transform(adata)}, {"once": study.scratch(model, norm="layer")}
    rows = list(study.label_curve(arms, numbers, adata, [12, 24], 0, once))
    first, more = ("one", "none", "once", "numbers"), ("one", "none", "numbers")
    assert [(r["labels"], r["model"]) for r in rows] == [(12, m) for m in first] + [(24, m) for m in more]
    assert len(set(seen)) == 2 and seen[0][0] == seen[4][0][:12]
    assert (once["once"].norm, once["once"].use_pretrained, model.norm) == ("layer", False, "none")
    assert rows[0]["accuracy"] != rows[1]["accuracy"] or rows[0]["auroc"] != rows[1]["auroc"]


@pytest.mark.filterwarnings("ignore:these values look like counts, and logged=True")
def test_the_published_protocol_has_two_arms_on_one_split(model, sets):
    found = study.published_protocol(model, sets["set 0"], 0, 40)
    assert list(found) == ["pre-trained", "from scratch"] and found["pre-trained"] != found["from scratch"]
    assert found == study.published_protocol(model, sets["set 0"], 0, 40)
    assert found != study.published_protocol(model, sets["set 0"], 0, 40, logged=True, fit_epochs=2)
    assert not model.logged and model.fit_epochs == 15


def test_embeddings_are_centred_and_scaled_by_the_training_cells_alone():
    rng = np.random.default_rng(0)
    Z, y = rng.normal(size=(40, 3)), np.repeat(["a", "b"], 20)
    Z[:20] += 2
    train, test = np.arange(0, 40, 2), np.arange(1, 40, 2)
    proba, classes = study.class_scores(Z, y, train, test)
    moved = Z * 7 + 3
    np.testing.assert_allclose(study.class_scores(moved, y, train, test)[0], proba, atol=1e-6)
    far = Z.copy()
    far[test[1:]] += 100
    np.testing.assert_allclose(study.class_scores(far, y, train, test)[0][0], proba[0], atol=1e-6)
    assert list(classes) == ["a", "b"]
    assert study.mean_accuracy(Z, y, 10, range(2)) > 0.8


def test_other_heads_are_scored(sets):
    adata = sets["set 0"]
    y = adata.obs["cell_type"].to_numpy(str)
    pool, test = study.draw(len(y), 0)
    Z = np.log1p(adata.X.toarray())
    found = study.other_heads(Z, y, pool, test, 0)
    assert list(found) == ["random forest", "logistic", "SVM", "k-means"]
    assert found["logistic"] > 0.9 and -1 <= found["k-means"] <= 1


def test_straight_lines_give_a_larger_area_than_steps():
    y = np.array(["a"] * 2 + ["b"] * 8)
    proba = np.column_stack([np.linspace(0.9, 0.1, 10), np.linspace(0.1, 0.9, 10)])
    areas = study.hard_label_areas(y, proba, np.array(["a", "b", "never"][:2]))
    # Five cells are called a, two of them rightly: recall 1 at precision 2/5; lines go from (0, 1) to it.
    assert areas.loc["a", "steps"] == pytest.approx(0.4)
    assert areas.loc["a", "trapezoid"] == pytest.approx(0.7)
    assert areas.loc["a", "scores"] == 1


def test_a_correlation_has_the_interval_of_fishers_z():
    found = study.correlation(0.301, 60)
    assert (round(found.low, 3), round(found.high, 3)) == (0.051, 0.516)
    assert (study.correlation(0.9, 3).low, study.correlation(0.9, 3).high) == (-1, 1)


def test_what_is_missing_is_said_and_the_rest_comes(capsys):
    def load(name, route):
        if name == "gone":
            raise DataError("no such file")
        return f"{name} by {route}"

    assert study.obtainable(["here", "gone"], load) == {"here": "here by official"}
    assert capsys.readouterr().out == "gone is left out: no such file\n"


def test_a_baseline_reads_logged_counts(model, sets):
    adata = sets["set 0"]
    y, X = adata.obs["cell_type"].to_numpy(str), adata.X.copy()
    X.data = np.log1p(X.data)
    baseline = study.as_baseline(model, adata.var_names).fit(X[:60], y[:60])
    np.testing.assert_allclose(baseline[0].transform(X), model.transform(adata), rtol=1e-5)
    assert baseline.predict(X[60:]).shape == (60,)


def test_stability_is_a_correlation_over_sets():
    # From scratch the sets vary by 0, 2 and 4 units between two splits; the gains are 1, 2 and 3 units.
    rows = [(f"set {k}", split, "old", 0.5 + split * 0.02 * k**0.5) for k in range(3) for split in range(2)]
    rows += [(name, split, "new", value + 0.01 * (int(name[-1]) + 1)) for name, split, _, value in rows]
    table = pd.DataFrame(rows, columns=["held_out", "split", "arm", "average_precision"])
    assert study.stability(table, "new", "old").value == pytest.approx(1)
    table.loc[table["arm"] == "new", "average_precision"] *= -1
    assert study.stability(table, "new", "old").value < 0.9
