"""scPretrain given what people have: logged tables, other types, empty cells, rare types, genes it does not know."""

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone

from shared.data import Corpus
from shared.data.errors import DataError, DataWarning
from shared.methods.scpretrain import PseudoLabeller, ScPretrain, estimator, logged
from shared.preprocess import log_normalize
from shared.train import TrainingError

GENES = [f"G{i}" for i in range(40)]


def cells(n=90, seed=0, kinds=3):
    """Counts with some genes of each type's own, and types."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, kinds, n)
    rate = np.full((kinds, len(GENES)), 0.3)
    for kind in range(kinds):
        rate[kind, kind * 8 : kind * 8 + 6] = 4
    return sparse.csr_matrix(rng.poisson(rate[y]).astype(np.float32)), np.array(list("abcd"))[y]


def annotated(n=90, seed=0, genes=GENES):
    X, y = cells(n, seed)
    return ad.AnnData(X, obs=pd.DataFrame({"cell_type": y}, [f"c{i}" for i in range(n)]), var=pd.DataFrame(index=genes))


def corpus(**counts):
    counts = counts or {"one": cells(90, 1)[0], "two": cells(80, 2)[0]}
    return SimpleNamespace(genes=GENES, counts=counts, matrices={k: logged(v) for k, v in counts.items()})


def small(**options):
    settings = {"rounds": 1, "epochs": 2, "width": 8, "hidden": 8, "batches": 3, "cells_per_cluster": (30, 20)}
    settings |= {"lr": 1e-2, "fit_epochs": 10, "fit_lr": 1e-2, "random_state": 0, "device": "cpu"}
    return ScPretrain(**settings | options)


@pytest.fixture(scope="module")
def pretrained():
    return small().pretrain(corpus())


# A checkpoint.


def test_any_cell_that_was_replaced_makes_another_pretraining(tmp_path):
    path, (X, _) = tmp_path / "run.safetensors", cells(400)
    small(checkpoint=path).pretrain(corpus(one=X))
    small(checkpoint=path, rounds=2).pretrain(corpus(one=X))
    other = X.copy()
    other[2, 3] += 1
    with pytest.raises(TrainingError, match="differs in sets"):
        small(checkpoint=path, rounds=2).pretrain(corpus(one=other))


# Logged values.


def scanpys(adata):
    """As scanpy leaves data: log1p of CP10k in `X`, the counts gone."""
    found = adata.copy()
    found.X, found.uns["log1p"] = log_normalize(found.X), {"base": None}
    return found


@pytest.mark.parametrize("dense", [False, True])
def test_logged_values_are_not_logged_again(pretrained, dense):
    mine = scanpys(annotated())
    mine.X = mine.X.toarray() if dense else mine.X
    for use in (clone(pretrained).fit, pretrained.transform, clone(pretrained).fit(annotated()).predict):
        with pytest.raises(ValueError, match=r"looks logged already \(frac.*layers\['counts'\].*logged=True"):
            use(mine)
    mine.layers["counts"] = annotated().X
    assert np.array_equal(pretrained.transform(mine), pretrained.transform(annotated()))
    del mine.layers["counts"]
    clone(pretrained).set_params(logged=True).fit(mine)


def test_logged_values_that_say_they_are_counts_are_seen_by_their_totals(pretrained):
    mine = scanpys(annotated())
    mine.uns["units"] = "counts"
    with pytest.raises(ValueError, match=r"looks logged already \(uns\['units'\] says 'log'"):
        pretrained.transform(mine)


def test_fractions_that_are_counts_pass_in_the_layer_of_counts(pretrained):
    mine = annotated()
    mine.X = mine.X * np.float32(0.9)
    for units in ("counts", "tpm", None):
        mine.uns["units"] = units
        with pytest.raises(ValueError, match=r"if these are counts, put them into adata.layers\['counts'\]"):
            pretrained.transform(mine)
    mine.layers["counts"] = mine.X.copy()
    with pytest.warns(DataWarning, match="look logged, and counts are expected"):
        assert pretrained.transform(mine).shape == (90, 8)
    mine = annotated()
    mine.X = mine.X * np.float32(20.5)
    pretrained.transform(mine), pretrained.transform(annotated()[:1])


# What pre-training is given.


def test_a_dict_of_data_sets_becomes_a_corpus():
    sets = {"one": annotated(seed=1), "two": annotated(80, seed=2)}
    got, wanted = small().pretrain(sets).pretrained_, small().pretrain(Corpus(sets)).pretrained_
    assert np.array_equal(got["weight"], wanted["weight"]) and got["genes"] == wanted["genes"]
    with pytest.raises(ValueError, match="in the corpus as 'one'"):
        small().pretrain(sets, test=sets["one"])
    with pytest.raises(ValueError, match="hold one at least"):
        small().pretrain({})


@pytest.mark.parametrize("make", [annotated, lambda: [annotated()], lambda: cells()[0], lambda: "one.h5ad"])
def test_what_is_no_corpus_is_refused_with_a_cure(make):
    with pytest.raises(DataError, match=r"takes a corpus, not \w+: give a dict of names and AnnData"):
        small().pretrain(make())


# Cells without a count, single cells.


@pytest.mark.parametrize("space", ["raw", "log1p", "normalized", "pca"])
@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csr_matrix.toarray])
def test_a_cell_without_a_count_in_the_corpuss_genes_stays_at_zero(space, form):
    X = cells(90)[0].tolil()
    X[[3, 50]] = 0
    X = X.tocsr()
    made = PseudoLabeller(space, (30,)).points(form(X))
    rest = np.setdiff1d(np.arange(90), [3, 50])
    alone = PseudoLabeller(space, (30,)).points(form(X[rest]))
    if space != "pca":
        made, alone = (part.toarray() if sparse.issparse(part) else part for part in (made, alone))
        assert not made[[3, 50]].any() and np.array_equal(made[rest], alone)
    labels = PseudoLabeller(space, (30,)).fit_predict(form(X)).labels
    assert len(labels) == 90 and labels[3] == labels[50]
    small(space=space, rounds=2).pretrain(corpus(one=X))


def test_a_set_without_any_count_or_no_counts_at_all_is_refused_by_name():
    X = cells(90)[0]
    with pytest.raises(DataError, match="data set 'two': no cell has a count"):
        small(space="pca").pretrain(corpus(one=X, two=X * 0))
    with pytest.raises(DataError, match="data set 'two': X looks logged already"):
        small(space="pca").pretrain(corpus(one=X, two=logged(X)))


def test_cells_without_components_are_refused():
    X = cells(90)[0]
    for bad in (X[:1], X[[4, 4, 4]], X[:, :1]):
        genes = GENES[: bad.shape[1]]
        given = SimpleNamespace(genes=genes, counts={"one": bad}, matrices={"one": logged(bad)})
        with pytest.raises(DataError, match=f"{bad.shape[0]} cells of {len(genes)} genes do not differ"):
            small(start="pca", rounds=0, cells_per_cluster=(1,)).pretrain(given)
    assert PseudoLabeller("pca", (1,)).fit_predict(X[:1]).labels.tolist() == [[0]]


# Rare types.


def test_a_type_is_never_held_out_whole(pretrained, monkeypatch):
    seen, real = [], estimator.labelled_batches
    monkeypatch.setattr(estimator, "labelled_batches", lambda *args: seen.append(args[1:4]) or real(*args))
    mine = annotated(60)
    mine.obs["cell_type"] = ["rare"] + ["pair"] * 2 + list(mine.obs["cell_type"][3:])
    for seed in range(12):
        clone(pretrained).set_params(random_state=seed, validation=0.5, fit_epochs=1).fit(mine)
    lost = 0
    for seed, (y, kept, held) in enumerate(seen):
        assert set(y[kept]) == set(y) and np.array_equal(np.union1d(kept, held), np.arange(60))
        random = np.random.default_rng((clone(pretrained).set_params(random_state=seed)._seed(), 1)).permutation(60)[
            :30
        ]
        gone = len(set(y) - set(np.delete(y, random)))
        assert len(held) == 30 - gone and set(held) <= set(random)
        lost += gone
    assert lost, "some draws would have held out every cell of a type"
    clone(pretrained).set_params(fit_epochs=1).fit(mine, val=[0, 1, 2])
    assert seen[-1][2].tolist() == [0, 1, 2], "cells that were named are held out as they are"


# Genes.


def test_few_known_genes_are_warned_of(pretrained):
    names = [*GENES[:3], *(f"other {i}" for i in range(37))]
    mine = annotated(genes=names)
    for use in (clone(pretrained).fit, pretrained.transform):
        with pytest.warns(DataWarning, match="3 of the 40 genes that the encoder knows are among these 40"):
            use(mine)
    mine = annotated(genes=[*GENES[:4], *names[4:]])
    clone(pretrained).fit(mine)
    pretrained.transform(mine)
    pretrained.transform(annotated()[:, :2])  # a panel, all of which is known
    clone(pretrained).set_params(use_pretrained=False).fit(annotated(genes=names))


def test_another_number_of_genes_is_told_by_its_names(pretrained):
    model = clone(pretrained).fit(annotated())
    with pytest.raises(ValueError, match=r"yet now missing:\n- G0\n(.|\n)*align_genes"):
        model.predict(annotated()[:, 1:])
