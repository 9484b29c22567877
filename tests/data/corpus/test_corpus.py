"""A corpus: every value in its place, memory that goes with what is stored, and no copy of a set that is left out."""

import shutil
import subprocess
import sys
import time
import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from shared import data
from shared.data import Corpus, simulate
from shared.data.constraints import SettingError
from shared.data.corpus.aligned import DataSet, OnDisk
from shared.data.corpus.fingerprint import Fingerprint, fingerprint, gene_keys, shared_cells
from shared.data.errors import DataError
from shared.data.genes.translate import to_human
from shared.preprocess import log_normalize

GENES = [f"G{i:03d}" for i in range(200)]


def cells(n=40, genes=GENES, seed=0, units="counts", form=sparse.csr_matrix):
    """Counts of which a third are not zero."""
    rng = np.random.default_rng(seed)
    X = rng.poisson(3, (n, len(genes))) * (rng.random((n, len(genes))) < 0.35)
    obs = pd.DataFrame({"cell_type": rng.choice(list("abc"), n)}, index=[f"s{seed}c{i}" for i in range(n)])
    made = ad.AnnData(form(X.astype(np.float32)), obs=obs, var=pd.DataFrame(index=list(genes)))
    made.uns["units"] = units
    return made


def hash_of(value):
    return DataSet("a", value).hash


def changed(adata, seed=1, names=True):
    """The same cells in another order, with their genes in another order and under other cell names."""
    rng = np.random.default_rng(seed)
    found = adata[rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)].copy()
    if names:
        found.obs_names = [f"other{i}" for i in range(found.n_obs)]
    return found


def dense(X):
    return X[np.arange(X.shape[0])].toarray() if isinstance(X, OnDisk) else X.toarray()


@pytest.fixture
def sets():
    """Three sets whose genes overlap in part and come in different orders."""
    rng = np.random.default_rng(0)
    lists = [GENES[:170], GENES[30:], list(rng.permutation(GENES[15:185]))]
    return {name: cells(40 + 7 * i, genes, i) for i, (name, genes) in enumerate(zip(("one", "two", "three"), lists))}


@pytest.fixture
def paths(sets, tmp_path):
    for name, adata in sets.items():
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    return {name: tmp_path / f"{name}.h5ad" for name in sets}


# Alignment.


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize(
    "genes", ["common", "union", ["G080", "G033", "absent", "G144"]], ids=["common", "union", "list"]
)
def test_every_value_is_in_its_place(sets, paths, genes, where):
    corpus = Corpus(sets if where == "memory" else paths, genes=genes)
    expected = {"common": GENES[30:170], "union": GENES}.get(genes if isinstance(genes, str) else None, genes)
    assert corpus.genes == tuple(expected) and list(corpus.matrices) == list(sets) == list(corpus)
    for name, adata in sets.items():
        frame = adata.to_df().reindex(columns=expected, fill_value=0)
        X, logs = corpus.counts[name], corpus.matrices[name]
        assert isinstance(X, OnDisk) == (where == "disk") and X.shape == logs.shape == frame.shape
        np.testing.assert_array_equal(dense(X), frame)
        np.testing.assert_array_equal(dense(logs), np.log1p(frame))
        if where != "disk":
            assert logs.dtype == X.dtype == np.float32 and logs.has_canonical_format and logs.format == "csr"
            assert logs.data.all() and np.shares_memory(logs.indices, X.indices), "columns are kept once"


@pytest.mark.parametrize(
    "form",
    [np.asarray, sparse.csc_matrix, sparse.csr_array, lambda X: sparse.csr_matrix(X).astype(np.int64)],
    ids=["dense", "CSC", "csr_array", "int64"],
)
def test_any_form_of_matrix_will_do(form):
    one, other = cells(seed=3), cells(seed=3, form=form)
    a, b = Corpus({"x": one}), Corpus({"x": other})
    assert (a.matrices["x"] != b.matrices["x"]).nnz == 0 and hash_of(one) == hash_of(other)


def test_entries_in_parts_and_stored_zeros_are_one_entry_and_none():
    X = sparse.csr_matrix((np.float32([1, 2, 0, 4]), [1, 1, 0, 2], [0, 3, 4]), shape=(2, 3))
    given_ = X.copy()
    corpus = Corpus({"x": ad.AnnData(X, var=pd.DataFrame(index=list("abc")))})
    assert corpus.counts["x"].data.tolist() == [3, 4] and (given_ != X).nnz == 0 and X.nnz == 4


@pytest.mark.parametrize("genes", [GENES, GENES[::-1]])
def test_the_corpus_and_the_callers_matrix_do_not_touch(genes):
    adata = cells()
    before = adata.X.toarray()
    corpus = Corpus({"x": adata}, genes=genes)
    kept = dense(corpus.counts["x"]).copy()
    corpus.matrices["x"].data[:] = -1
    corpus.counts["x"].data[:] += 1
    assert (adata.X.toarray() == before).all()
    corpus = Corpus({"x": adata}, genes=genes)
    adata.X.data[:] = 99
    assert (dense(corpus.counts["x"]) == kept).all()


def test_counts_are_taken_from_their_layer(tmp_path):
    adata = cells()
    adata.layers["counts"] = adata.X.copy()
    adata.X, adata.uns["units"] = log_normalize(adata.X), "log"
    adata.write_h5ad(tmp_path / "a.h5ad")
    for given_ in (adata, tmp_path / "a.h5ad"):
        assert (dense(Corpus({"x": given_}).counts["x"]) == adata.layers["counts"].toarray()).all()


@pytest.mark.parametrize("units", ["log", "counts", None])
def test_logged_values_are_refused_with_a_cure(tmp_path, units):
    """Beside log(1 + count) they would be on another scale."""
    adata = log_normalize(cells())
    counts = adata.layers.pop("counts")
    adata.uns["units"] = units or ""
    adata.write_h5ad(tmp_path / "a.h5ad")
    for given_ in (adata, tmp_path / "a.h5ad"):
        with pytest.raises(DataError, match=r"mixed looks logged already.*layers\['counts'\]"):
            Corpus({"good": cells(seed=1), "mixed": given_})
    totals = np.asarray(counts.sum(1)) / 1e4
    adata.layers["counts"] = sparse.csr_matrix(adata.X.expm1().multiply(totals))
    np.testing.assert_allclose(dense(Corpus({"x": adata}).counts["x"]), counts.toarray(), rtol=1e-4)


def test_rows_on_disk_are_those_in_memory(sets, paths):
    a, b = Corpus(sets).matrices["two"], Corpus(paths).matrices["two"]
    rng = np.random.default_rng(0)
    asked = [rng.permutation(47)[:20], np.array([5]), np.array([3, 3, 1]), np.arange(4, 30, 3), np.arange(0)]
    for rows in asked:
        found = b[rows]
        assert found.format == "csr" and found.shape[1] == 140
        np.testing.assert_array_equal(found.toarray(), a[rows].toarray())
    assert "47 cells × 140 genes in two.h5ad" in repr(b)
    for rows, says in ((a.indices > 3, "positions"), (np.array([47]), "positions"), (np.eye(2, dtype=int), "rows")):
        with pytest.raises(DataError, match=says):
            b[rows]


@pytest.fixture(scope="module")
def mouse():
    """Counts under the names of mouse genes that have one human partner, and of some that have none."""
    pairs = data.gene_table("orthologs")
    pairs = pairs[pairs["mouse"].str.upper() == pairs["human"]].iloc[1:301]
    names = [*pairs["mouse"], "0610005C13Rik", "0610009B22Rik"]
    return cells(30, names, 7), dict(zip(pairs["mouse"], pairs["human"]))


def test_mouse_sets_are_to_be_translated(mouse):
    adata, partner = mouse
    human = cells(25, sorted(partner.values())[:200], 8)
    with pytest.raises(DataError, match=r"share \d+ genes? .*mouse symbols.*translate\.to_human"):
        Corpus({"mouse": adata, "human": human})
    assert len(Corpus({"mouse": to_human(adata)[0], "human": human}).genes) == 200


def flawed(what):
    adata = cells()
    if what == "negative":
        adata.X.data[3] = -1
    elif what == "NaN":
        adata.X.data[3] = np.nan
    elif what == "twice":
        adata.var_names = [*GENES[:-1], "G000"]
    elif what == "unsaid":
        adata.X.data[:] /= 8
        del adata.uns["units"]
    elif what == "empty":
        adata = adata[:0].copy()
    return adata


@pytest.mark.filterwarnings("ignore:.*not unique:UserWarning")
@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("negative", "'?bad'? holds negative values"),
        ("NaN", r"bad.* holds .*NaN or infini"),
        ("twice", r"names 1 gene more than once \(G000\)"),
        ("unsaid", r"bad looks logged already \(frac.*layers\['counts'\]"),
        ("empty", r"bad has shape \(0, 200\)|there is nothing to read"),
    ],
)
def test_a_set_that_is_no_counts_is_named(tmp_path, where, what, says):
    adata = flawed(what)
    if where == "disk":
        adata.write_h5ad(tmp_path / "bad.h5ad")
        adata = tmp_path / "bad.h5ad"
    with pytest.raises(DataError, match=says):
        Corpus({"good": cells(seed=1), "bad": adata})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Corpus({}), "hold one at least"),
        (lambda: Corpus([cells()]), "a dict of names"),
        (lambda: Corpus({3: cells()}), r"names \(words\)"),
        (lambda: Corpus({"a": np.ones((2, 2))}), "'a' is ndarray"),
        (lambda: Corpus({"a": cells()}, genes="some"), "'common', 'union'"),
        (lambda: Corpus({"a": cells()}, genes=[]), "names none"),
        (lambda: Corpus({"a": cells()}, genes=["G001", "G001"]), "more than once"),
        (lambda: Corpus({"a": cells()}, genes=["CD3D", "LYZ"]), r"a has none of the 2 genes; .*translate it first"),
        (lambda: Corpus({"a": cells(), "b": cells(genes=["X", "Y"])}), "share 0 genes .*to_symbols"),
        (lambda: Corpus({"a": "nowhere.h5ad"}), "nowhere.h5ad cannot be read"),
        (lambda: Corpus({"a": cells()}).without("b"), "no data set b; it has a"),
        (lambda: Corpus({"a": cells()}).select(["a", "c"]), "no data set c; it has a"),
        (lambda: Corpus({"a": cells()}).select([]), "no data set without a name"),
        (lambda: Corpus({"a": cells()}).without("a"), "nothing is left"),
        (lambda: Corpus({"a": cells()}).batches(0, 0), "n_batches=0"),
    ],
)
def test_what_is_refused(make, says):
    with pytest.raises((DataError, SettingError), match=says):
        make()


def test_a_corpus_says_what_it_is(sets, paths):
    assert repr(Corpus(sets)) == "Corpus of 3 data sets: 141 cells × 140 genes"
    both = Corpus({"one": sets["one"], "two": paths["two"]})
    assert repr(both) == "Corpus of 2 data sets, 1 on disk: 87 cells × 140 genes"
    assert len(both) == 2 and "two" in both and "three" not in both


# The same content.


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([np.float32, np.float64, np.int32]))
def test_the_hash_asks_for_no_order(seed, drop, dtype):
    adata = cells(12, seed=seed % 50)
    adata.X.data[adata.X.indices == 4] = 0
    other = changed(adata, seed)
    other = other[:, other.var_names != "G004"].copy() if drop else other
    other.X = other.X.astype(dtype)
    assert hash_of(adata) == hash_of(other)


def moved(X):
    """One count goes from one cell to another."""
    X[0, 5], X[1, 5] = X[0, 5] + 1, X[1, 5] + 3
    return X


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[1:],
        lambda a: ad.AnnData(a.X[[0, *range(a.n_obs)]], var=a.var),
        lambda a: ad.AnnData(sparse.csr_matrix(moved(a.X.toarray())), var=a.var),
        lambda a: ad.AnnData(a.X[:, ::-1], var=a.var),
        lambda a: ad.AnnData(a.X * 2, var=a.var),
        lambda a: ad.AnnData(a.X, var=a.var.set_axis([f"H{g}" for g in a.var_names])),
    ],
    ids=["a cell less", "a cell twice", "other counts", "genes swapped", "doubled", "other genes"],
)
def test_another_content_has_another_hash(change):
    adata = cells()
    assert hash_of(adata) != hash_of(change(adata).copy())


def test_the_hash_is_the_same_everywhere(sets, paths):
    assert {n: hash_of(a) for n, a in sets.items()} == {n: hash_of(str(p)) for n, p in paths.items()}
    found = gene_keys(["CD3D", "LYZ"])
    assert found.tolist() == [5523304108508656964, 7043161009915608330] and found.dtype == np.uint64
    small = ad.AnnData(np.float32([[0, 1], [2, 0]]), var=pd.DataFrame(index=["CD3D", "LYZ"]))
    assert hash_of(small) == "d1b1e048dad11ef28c519a5cbc31d878cb0ffdabf796521f483f653558df9146"


def test_fingerprints_in_blocks_are_those_of_the_whole(monkeypatch):
    X, keys = cells(200).X, gene_keys(GENES)
    whole = fingerprint(X, keys)
    monkeypatch.setattr("shared.data.corpus.fingerprint.BLOCK", 37)
    for a, b in zip(whole, fingerprint(X, keys), strict=True):
        assert (a == b).all()
    assert (whole.expressed == (X > 0).sum(1).A1).all()
    wide = fingerprint(sparse.csr_matrix((3, 200), dtype=np.float32), keys)
    assert not any(part.any() for part in wide), "cells without anything"


COPIES = {
    "shuffled": lambda a: changed(a),
    "a third of it": lambda a: changed(a[:40]),
    "rare genes dropped": lambda a: changed(a[:, np.asarray((a.X > 0).sum(0)).ravel() > 36]),
    "half of the genes": lambda a: changed(a[:, ::2]),
    "more cells added": lambda a: ad.concat([changed(a[:60]), cells(90, seed=77)]),
}


def logged(adata):
    adata.X, adata.uns["units"] = log_normalize(adata.X), "log"
    return adata


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("genes", ["common", "union"])
@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_found_whatever_its_name(tmp_path, copy, genes, where):
    one, other = cells(120, seed=1), COPIES[copy](cells(120, seed=1))
    sets = {"one": one, "another study": other, "third": cells(80, seed=2)}
    if where == "disk":
        for i, (name, adata) in enumerate(sets.items()):
            adata.uns.setdefault("units", "counts")
            adata.write_h5ad(tmp_path / f"{i}.h5ad")
            sets[name] = tmp_path / f"{i}.h5ad"
    corpus = Corpus(sets, genes=genes)
    found = corpus.overlaps()
    assert found[["first", "second"]].to_numpy().tolist() == [["one", "another study"]]
    cells_there = {"a third of it": 40, "more cells added": 60}.get(copy, 120)
    assert found["cells"].item() == cells_there
    assert found["share"].item() == (0.5 if copy == "more cells added" else 1)
    for gone in ("one", "another study"):
        left = corpus.without(gone)
        assert list(left) == ["third"] and set(left.left_out) == {"one", "another study"}
    assert corpus.without("third").left_out == ("third",)


@pytest.mark.parametrize("genes", [slice(None), slice(None, None, 2)])
def test_logarithms_of_cells_in_the_corpus_are_found(tmp_path, genes):
    corpus = Corpus({"one": cells(120, seed=1), "third": cells(80, seed=2)})
    other = logged(changed(cells(120, seed=1)[:, genes]))
    other.write_h5ad(tmp_path / "a.h5ad")
    for given_ in (other, tmp_path / "a.h5ad"):
        assert corpus.without(given_).left_out == ("one",)
        with pytest.raises(DataError, match="is in the corpus as 'one'"):
            corpus.check_absent(given_)


def test_a_corpus_without_a_set(sets):
    corpus = Corpus(sets)
    left = corpus.without("two")
    assert left.genes == corpus.genes and list(left.matrices) == list(left.counts) == ["one", "three"]
    assert left.matrices["one"] is corpus.matrices["one"], "nothing is copied"
    assert list(corpus.matrices) == list(sets) and corpus.left_out == ()
    assert list(corpus.select(["three", "one"])) == ["three", "one"] and list(corpus.select("two")) == ["two"]
    assert left.without("one").left_out == ("two", "one")
    assert corpus.without(changed(sets["one"])).left_out == ("one",)
    assert corpus.without(cells(seed=9)).left_out == ()


def test_a_few_shared_cells_do_not_make_two_sets_one():
    one = cells(100, seed=1)
    sets = {"one": one, "third": cells(seed=3)}
    for n, left in ((4, ["other", "third"]), (6, ["third"])):
        corpus = Corpus(sets | {"other": ad.concat([changed(one[:n]), cells(100 - n, seed=5)])})
        assert corpus.overlaps()["share"].tolist() == [n / 100]
        assert sorted(corpus.without("one")) == left
    corpus.check_absent(ad.concat([one[:4], cells(96, seed=6)]))
    with pytest.raises(DataError, match=r"'one' \(6% .*, 'other' \(6%"):
        corpus.check_absent(ad.concat([one[:6], cells(94, seed=6)]))


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_set_that_is_to_be_tested_on_must_be_absent(sets, paths, where):
    corpus = Corpus(sets if where == "memory" else paths)
    corpus.check_absent(cells(seed=9))
    corpus.check_absent(cells(genes=["CD3D", "LYZ"]))
    for copy in (changed(sets["two"]), sets["two"][:20].copy(), paths["two"]):
        with pytest.raises(DataError, match=r"is in the corpus as 'two' \(100% .*corpus\.without\(adata\)"):
            corpus.check_absent(copy)


def test_unlike_cells_are_not_taken_for_copies():
    """Sets of one simulated tissue, samples of an array that express every gene, and cells with few genes."""
    of_one_kind = {f"s{i}": a for i, a in enumerate(simulate.many(6, n_cells=300, n_genes=200, depth=150, effect=0.2))}
    assert Corpus(of_one_kind).overlaps().empty
    rng = np.random.default_rng(0)
    arrays = {}
    for name in ("a", "b"):
        arrays[name] = ad.AnnData(rng.gamma(4, 2, (12, 200)).astype(np.float32) + 1, var=pd.DataFrame(index=GENES))
        arrays[name].layers["counts"] = arrays[name].X
    assert Corpus(arrays).overlaps().empty
    poor = {}
    for name in ("a", "b"):
        X = sparse.csr_matrix(np.eye(200, dtype=np.float32))
        poor[name] = ad.AnnData(X + sparse.eye(200, k=1, format="csr", dtype=np.float32), var=pd.DataFrame(index=GENES))
    poor["b"] = ad.concat([poor["b"], cells(10, seed=4)])
    assert Corpus(poor).overlaps().empty, "two genes tell nothing of a cell"


def test_a_pattern_that_a_set_shows_twice_tells_nothing():
    keys = np.arange(1, 5, dtype=np.uint64)
    expressed = np.full(4, 30, np.int32)
    a = Fingerprint(keys, np.uint64([7, 7, 8, 9]), expressed)
    b = Fingerprint(keys + np.uint64(10), np.uint64([7, 8, 9, 9]), expressed)
    assert shared_cells(a, b, 60) == 1, "8 is the only one that stands once in both"
    assert shared_cells(a, b, 39) == 0, "nine silent genes are too few"


def test_real_sets_share_no_cell_but_with_their_copies(fixtures):
    """Seven sets, several of one tissue and chemistry, and an eighth that was made from one of them."""
    names = ["pbmc3k_2638", "pbmc_zheng_facs_3774", "pbmc_10x_3tech_1200"]
    names += ["celltypist_sample_immune_559", "pancreas_baron_human_mouse_350"]
    sets = {n: ad.read_h5ad(fixtures(f"h5ad/{n}.h5ad")) for n in names}
    zheng = sets["pbmc_zheng_facs_3774"]
    sets["pbmc_zheng_facs_3774"], _ = data.to_symbols(zheng, column="symbol")
    pbmc = data.load("pbmc")
    sets |= {f"pbmc {run}": pbmc[(pbmc.obs["run"] == run).to_numpy()].copy() for run in pbmc.obs["run"].unique()}
    corpus = Corpus(sets, genes="union")
    assert corpus.overlaps().empty
    variable = sets["pbmc3k_2638"][::3, np.argsort(-sets["pbmc3k_2638"].X.toarray().var(0))[:700]].copy()
    with pytest.raises(DataError, match=r"in the corpus as 'pbmc3k_2638' \((99|100)%"):
        corpus.check_absent(logged(changed(variable)))


# Batches.


def epoch(corpus, n_batches=4, seed=0):
    return list(corpus.batches(n_batches, np.random.default_rng(seed)))


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_step_holds_a_batch_of_every_set(sets, paths, where):
    corpus = Corpus(sets if where == "memory" else paths)
    logs = {name: dense(X) for name, X in corpus.matrices.items()}
    steps = epoch(corpus)
    # 40, 47 and 54 cells in batches of 10, 11 and 13: 4, 5 and 5 of them.
    assert len(steps) == 4 and [[X.shape[0] for X in s[0]] for s in steps] == [[10, 11, 13]] * 4
    for step in steps:
        for X, rows, name in zip(step[0], step[1], corpus, strict=True):
            assert X.format == "csr" and X.dtype == np.float32
            np.testing.assert_array_equal(X.toarray(), logs[name][rows])
    for i, n in enumerate((40, 44, 52)):
        rows = np.concatenate([s[1][i] for s in steps])
        assert len(np.unique(rows)) == n, "no cell comes twice"
        assert (np.diff(rows) != 1).sum() > n / 2, "cells are shuffled"


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_the_generator_decides_the_order(sets, paths, where):
    corpus = Corpus(sets if where == "memory" else paths)
    rows = [np.concatenate([np.concatenate(s[1]) for s in epoch(corpus, seed=seed)]) for seed in (0, 0, 1)]
    assert (rows[0] == rows[1]).all() and (rows[0] != rows[2]).any()
    rng = np.random.default_rng(0)
    first, second = (np.concatenate([s[1][0] for s in corpus.batches(4, rng)]) for _ in range(2))
    assert (first != second).any(), "the next epoch has an order of its own"


def test_a_thousand_cells_make_31_steps_of_33():
    corpus = Corpus({"a": cells(1000, GENES[:12]), "b": cells(1200, GENES[:12], 1), "small": cells(930, GENES[:12], 2)})
    steps = epoch(corpus, 30)
    assert len(steps) == 30, "the epoch ends with the shortest set: 930 cells are 30 batches of 31"
    steps = epoch(corpus.without("small").without("b"), 30)
    assert [s[0][0].shape[0] for s in steps] == [33] * 30 + [10]
    assert [s[0][0].shape[0] for s in epoch(Corpus({"a": cells(3)}), 30)] == [1, 1, 1]


# Speed and memory.


def sparse_set(n, genes, per_cell, seed=0):
    rng = np.random.default_rng(seed)
    X = sparse.random(n, len(genes), per_cell / len(genes), format="csr", dtype=np.float32, random_state=rng)
    X.data = np.ceil(4 * X.data)
    return ad.AnnData(X, var=pd.DataFrame(index=list(genes)), uns={"units": "counts"})


def test_seventeen_thousand_genes_find_their_places_at_once():
    rng = np.random.default_rng(0)
    genes = np.array([f"GENE{i}" for i in range(17_298)])
    adata = sparse_set(10, genes[rng.permutation(len(genes))], 300)
    order, keys, seconds = sorted(genes), gene_keys(sorted(genes)), []
    for _ in range(7):
        one, start = DataSet("a", adata), time.process_time()
        one.align(order, keys)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.05


def test_memory_goes_with_what_is_stored():
    """12 bytes an entry when made and some more on the way, and never cells times genes."""
    genes = [f"GENE{i}" for i in range(17_298)]
    sets = {"a": sparse_set(1000, genes, 400), "b": sparse_set(1000, genes[::-1], 400, 1)}
    entries = sum(a.X.nnz for a in sets.values())
    tracemalloc.start()
    try:
        corpus = Corpus(sets)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    lists = 20e6  # names, places and keys of the genes
    assert kept < 13 * entries + lists and peak < 45 * entries + lists
    assert peak < 0.5 * 1000 * 17_298 * 4, "a dense copy of one set would be twice that"
    assert corpus.matrices["a"].nnz == 400_000 or abs(corpus.matrices["a"].nnz - 400_000) < 100


@pytest.mark.nightly
def test_sixty_sets_are_read_at_constant_memory(root, tmp_path):
    """Two epochs of 60 files need hardly more than two of 6; to hold them needs ten times as much."""
    for i in range(6):
        simulate.cells(1000, 400, depth=300, seed=i).write_h5ad(tmp_path / f"{i:02d}.h5ad")
    for i in range(6, 60):
        shutil.copy(tmp_path / f"{i % 6:02d}.h5ad", tmp_path / f"{i:02d}.h5ad")
    script = tmp_path / "read.py"
    script.write_text(
        "import resource, sys\n"
        "from pathlib import Path\n"
        "import anndata\n"
        "from shared.data import Corpus\n"
        "from shared.data.corpus import corpus as module\n"
        "def peak():\n"
        "    if sys.platform == 'linux':  # getrusage would tell the peak of the process that started this one\n"
        "        words = Path('/proc/self/status').read_text().split()\n"
        "        return int(words[words.index('VmHWM:') + 1]) / 1024\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20\n"
        "n, hold = int(sys.argv[1]), sys.argv[2] == 'hold'\n"
        "paths = {p.stem: p for p in sorted(Path(sys.argv[3]).glob('*.h5ad'))[:n]}\n"
        "list(Corpus({'a': paths['00']}).batches(4, 0))\n"
        "before = peak()\n"
        "module.MEMORY = 16 << 20\n"
        "corpus = Corpus({n: anndata.read_h5ad(p) for n, p in paths.items()} if hold else paths)\n"
        "steps = sum(1 for e in range(2) for step in corpus.batches(40, e))\n"
        "assert steps == 80\n"
        "print(peak() - before)\n"
    )

    def measured(n, how):
        words = [sys.executable, str(script), str(n), how, str(tmp_path)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=root)
        return float(done.stdout)

    few, many, held = measured(6, "read"), measured(60, "read"), measured(60, "hold")
    entries = 60 * 1000 * 180  # about
    assert many < few + 25, (few, many, held)
    assert held > many + 12 * entries / 2**20 / 3, "the bound would hold for a corpus in memory too"


def test_files_that_change_while_they_are_read_are_named(sets, paths):
    corpus = Corpus(paths)
    cells(30, seed=4).write_h5ad(paths["two"].with_suffix(".new"))
    paths["two"].with_suffix(".new").replace(paths["two"])
    with pytest.raises(DataError, match=r"two\.h5ad was changed"):
        epoch(corpus)


def test_files_are_closed_between_reads(sets, paths):
    """An open file costs a megabyte, and a process may open so many only."""
    corpus, this = Corpus(paths), psutil.Process()

    def held_open():
        return [f.path for f in this.open_files() if f.path.endswith(".h5ad")]

    assert not held_open()
    corpus.matrices["one"][np.arange(5)]
    assert not held_open()
    for _ in corpus.batches(4, 0):
        assert not held_open()
    corpus.overlaps()
    assert not held_open()
