"""The kit: rejection, scales, names, domains and pre-trained parts, on the toys of the protocols."""

import json
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shared.data.constraints import SettingError
from shared.data.errors import DataError, DataWarning
from shared.methods.base import TransferEstimator, example_cells
from shared.methods.network_classifier import NetworkClassifier
from shared.train import TrainingError
from shared.train.saved import ModelError, load_model, pack, save_model, unpack

from .toys import ToyClassifier, ToyDomainAware, ToyFewShot, ToyGenerator, ToyRegressor, ToyTranslator

CELLS = example_cells()


# Classes that are rejected.


def test_a_threshold_rejects_cells_that_are_like_no_class():
    model = ToyClassifier(random_state=0).fit(CELLS)
    best, names = model.predict_proba(CELLS).max(1), model.predict(CELLS)
    threshold = float(np.median(best))
    said = model.set_params(unknown=threshold).predict(CELLS)
    assert np.array_equal(said == "unknown", best < threshold)
    assert (said[best >= threshold] == names[best >= threshold]).all()


def test_a_threshold_that_cannot_be_used_is_refused():
    model = ToyClassifier(random_state=0).fit(CELLS)
    for bad in (2, -0.1, float("nan"), "x", True):
        with pytest.raises(SettingError, match=r"unknown=.* is not a number from 0 to 1, or None"):
            clone(model).set_params(unknown=bad).fit(CELLS)
    named = CELLS.copy()
    named.obs["cell_type"] = np.where(named.obs["cell_type"] == "T", "unknown", named.obs["cell_type"])
    ToyClassifier(random_state=0).fit(named).predict(named)
    with pytest.raises(DataError, match='a class is called "unknown"'):
        ToyClassifier(unknown=0.5).fit(named)


# Numbers.


def test_outputs_are_standardised_alone_and_come_back_in_their_units():
    y = np.c_[CELLS.obs["measured"] * 1000, CELLS.obs["measured"] * 0.001 - 5]
    found = ToyRegressor(epochs=300, random_state=0).fit(CELLS, y).predict(CELLS)
    assert found.shape == (60, 2) and np.abs(np.corrcoef(found[:, 0], y[:, 0])[0, 1]) > 0.9
    assert np.abs(found.mean(0) - y.mean(0)).max() < 0.1 * y.std(0).max()
    assert ToyRegressor(random_state=0).fit(CELLS, "measured").score(CELLS, "measured") > 0


def test_an_output_that_was_not_measured_is_refused():
    class Masked(ToyRegressor):
        allow_nan = "y"

    y = np.c_[CELLS.obs["measured"], np.r_[1.0, [np.nan] * 59]]
    with pytest.raises(DataError, match="output 1 has fewer than two measured values: leave it out"):
        Masked().fit(CELLS, y)


def test_a_score_looks_at_what_was_measured():
    y = CELLS.obs["measured"].to_numpy()
    two, weights = np.c_[y, np.where(np.arange(60) % 2, y, np.nan)], np.arange(60.0)
    model = ToyRegressor(random_state=0).fit(CELLS, np.c_[y, y])
    called, known = model.predict(CELLS), np.arange(60) % 2 == 1
    for w in (np.ones(60), weights):
        first = r2_score(y, called[:, 0], sample_weight=w)
        second = r2_score(y[known], called[known, 1], sample_weight=w[known])
        assert model.score(CELLS, two, w) == pytest.approx((first + second) / 2)
    with pytest.raises(ValueError, match="infinity"):
        model.score(CELLS, np.where(np.isnan(two), np.inf, two))
    with pytest.raises(DataError, match=r"y is \(60, 1\).*the prediction \(60, 2\)"):
        model.score(CELLS, y)
    with pytest.raises(DataError, match="no output has two measured values"):
        model.score(CELLS, two * np.nan)


def test_unknown_counts_as_wrong_also_where_classes_are_numbers():
    y = np.arange(60) % 3
    model = ToyClassifier(random_state=0).fit(CELLS, y)
    right = model.predict(CELLS) == y
    sure = model.predict_proba(CELLS).max(1) >= 0.6
    model.unknown = 0.6
    assert model.score(CELLS, y) == pytest.approx((right & sure).mean())
    assert model.score(CELLS, y, sample_weight=y) == pytest.approx(np.average(right & sure, weights=y))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.score(CELLS, y[1:])
    for unknown in (None, 0.6):
        model.unknown = unknown
        with pytest.raises(ValueError, match="Mix of label input types"):
            model.score(CELLS, y.astype(str))


# Domains.


def test_target_cells_need_no_labels():
    some = CELLS.copy()
    some.obs["cell_type"] = some.obs["cell_type"].astype(object).where(some.obs["domain"] > 0)
    model = ToyDomainAware().fit(some, "cell_type", "domain")
    assert np.array_equal(model.predict(CELLS), ToyDomainAware().fit(CELLS, "cell_type", "domain").predict(CELLS))


def test_domains_go_through_a_search():
    search = GridSearchCV(ToyDomainAware(), {}, cv=KFold(3))
    search.fit(CELLS.X, CELLS.obs["cell_type"], sample_domain=CELLS.obs["domain"].to_numpy())
    assert search.best_score_ > 0.6
    model = ToyDomainAware().fit(CELLS, "cell_type", "domain")
    assert np.array_equal(
        model.predict(CELLS), ToyDomainAware().fit(CELLS, "cell_type", CELLS.obs["domain"]).predict(CELLS)
    )


def test_a_warning_points_at_the_line_of_the_reader():
    counts = example_cells(counts=True).X
    with pytest.warns(DataWarning, match="look like counts") as given:
        make_pipeline(NetworkClassifier(epochs=1)).fit(counts, CELLS.obs["cell_type"])
    assert {w.filename for w in given} == {__file__}
    with pytest.warns(DataWarning, match="look like counts") as given:
        GridSearchCV(NetworkClassifier(epochs=1), {}, cv=2).fit(counts, CELLS.obs["cell_type"])
    assert {w.filename for w in given if w.category is DataWarning} == {__file__}


# Pre-trained parts.


@pytest.fixture(scope="module")
def pretrained():
    return ToyFewShot().pretrain(example_cells(seed=1))


def test_unnamed_columns_are_taken_to_be_those_of_the_pretraining_and_said_so(pretrained):
    y = CELLS.obs["cell_type"]
    with pytest.warns(DataWarning, match="24 columns have no names and are taken to be the genes of the pre-training"):
        model = clone(pretrained).fit(CELLS.X, y)
    assert np.array_equal(model.predict(CELLS.X), clone(pretrained).fit(CELLS).predict(CELLS))
    with pytest.raises(DataError, match="pre-trained on 24 genes, and these 23 are not the same"):
        clone(pretrained).fit(CELLS.X[:, 1:], y)


@pytest.mark.filterwarnings("ignore:these 24 columns have no names", "ignore:X has feature names")
def test_columns_that_were_taken_for_the_genes_of_the_pretraining_are_held_to_them(pretrained):
    model = clone(pretrained).fit(CELLS.X, CELLS.obs["cell_type"])
    assert model.score(CELLS) > 0.6
    with pytest.raises(DataError, match=r"pre-trained on 24 genes.*another order"):
        model.predict(CELLS[:, ::-1].copy())


@pytest.mark.filterwarnings("ignore:these 24 columns have no names")
def test_a_pretrained_model_stands_in_a_search_over_arrays_and_behind_a_scaler(pretrained, tmp_path):
    y = CELLS.obs["cell_type"].to_numpy()
    assert GridSearchCV(pretrained, {}, cv=KFold(3)).fit(CELLS.X, y).best_score_ > 0.6
    pipe = make_pipeline(StandardScaler(), pretrained).fit(CELLS.to_df(), y)
    assert pipe.score(CELLS.to_df(), y) > 0.6
    # What was pre-trained knows the names, so the model can be saved without being told them.
    model = clone(pretrained).fit(CELLS.X, y)
    assert list((model.save(tmp_path) / "genes.txt").read_text().split()) == list(CELLS.var_names)


def test_pretraining_again_forgets_the_fit(pretrained):
    model = clone(pretrained).fit(CELLS)
    model.pretrain(example_cells(seed=2))
    assert not hasattr(model, "prototypes_") and not hasattr(model, "classes_")
    with pytest.raises(ValueError, match="not fitted"):
        model.predict(CELLS)


def test_scales_are_compared_with_those_of_the_pretraining_and_of_the_fit(pretrained):
    counts = example_cells(counts=True)
    with pytest.warns(DataWarning, match=r"like counts.*pre-trained on look like logged.*log_normalize"):
        model = clone(pretrained).fit(counts)
    model.predict(counts)
    with pytest.warns(DataWarning, match=r"like logged.*fitted on look like counts"):
        model.predict(CELLS)


# Generators and translators.


def test_a_generator_moves_cells_to_another_condition():
    model = ToyGenerator().fit(CELLS, "domain")
    moved = model.generate(CELLS, -1)
    assert moved.shape == CELLS.shape and not np.allclose(moved, CELLS.X)


def test_a_translator_is_held_to_the_genes_in_its_rows():
    table = CELLS.to_df().T
    model = ToyTranslator().fit(table, 2 * table)
    assert np.allclose(model.predict(table.iloc[:, :3]), 2 * table.iloc[:, :3])
    with pytest.raises(DataError, match="align_genes"):
        model.predict(table.iloc[::-1])
    for other in (table.iloc[:, 1:], table.iloc[::-1], table.iloc[:, ::-1]):
        with pytest.raises(DataError, match="X and Y name other genes or studies"):
            ToyTranslator().fit(table, other)
    with pytest.raises(DataError, match=r"pass adata.to_df\(\).T"):
        ToyTranslator().fit(CELLS, CELLS)


# Saved models.


def test_a_folder_that_is_damaged_or_older_or_of_another_class_is_refused(tmp_path):
    folder = ToyClassifier(random_state=0).fit(CELLS).save(tmp_path / "model")
    with pytest.raises(ModelError, match="holds a ToyClassifier"):
        ToyRegressor.load(folder)
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in about.items() if k != "format"}))
    with pytest.raises(ModelError, match=r"saved by an older version.*fit the model again"):
        ToyClassifier.load(folder)
    for old in ("encoder", "classifier"):
        (tmp_path / "old" / old).mkdir(parents=True)
        with pytest.raises(ModelError, match="older version"):
            ToyClassifier.load(tmp_path / "old")
    with pytest.raises(ModelError, match=r"is no saved model: .*config.json is missing"):
        ToyClassifier.load(tmp_path / "nowhere")


@pytest.mark.parametrize("part", ["model.safetensors", "genes.txt", "config.json"])
@pytest.mark.parametrize("change", ["cut", "gone", "other"])
def test_each_file_of_a_saved_model_is_checked(part, change, tmp_path):
    folder = ToyClassifier(random_state=0).fit(CELLS).save(tmp_path)
    path, content = folder / part, (folder / part).read_bytes()
    path.unlink()
    if change != "gone":
        path.write_bytes(content[:-5] if change == "cut" else bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(ModelError, match="is missing" if change == "gone" else "is damaged"):
        ToyClassifier.load(folder)


def test_what_can_be_packed_comes_back(tmp_path):
    genes, value = ["a", "b"], {
        "numbers": (1, 2.5, None, True, "word"),
        "arrays": [np.arange(6, dtype=np.int32).reshape(2, 3), np.array([], np.float64), np.array(3.0)],
        "words": np.array(["x", "yy"]),
        "objects": np.array(["x", None], object),
        "genes": ["a", "b"],
        "names": np.array(["a", "b"], object),
        "scalar": np.float32(1.5),
        "columns": np.asfortranarray(np.ones((2, 3))),
        "nested": {"deep": [(), {}, []], "pairs": {1: 2.0, "@x": None}},
    }  # fmt: skip
    arrays: dict = {}
    config = {"value": pack(value, "value", arrays, genes)}
    arrays, config, theirs = load_model(save_model(tmp_path, arrays, config, genes), genes)
    assert theirs == genes and repr(unpack(config["value"], arrays, genes)) == repr(value)
    assert unpack(config["value"], arrays, genes)["columns"].flags.f_contiguous
    for bad in (object(), lambda: 0, pd.DataFrame(), np.random.default_rng()):
        with pytest.raises(ModelError, match="cannot be saved"):
            pack(bad, "x", {})
    for named in ("os:environ", "shared.train.settings:TrainingError", "shared.data.cells:read"):
        with pytest.raises(ModelError, match="no data class of this package"):
            unpack({"@dataclass": named, "fields": {}}, {})


def test_settings_that_were_changed_after_the_fit_change_no_saved_network(tmp_path):
    model = NetworkClassifier((5,), epochs=2, device="cpu", random_state=0).fit(CELLS)
    model.set_params(hidden=(8, 8), batch_norm=True).save(tmp_path)
    assert np.array_equal(NetworkClassifier.load(tmp_path).predict_proba(CELLS), model.predict_proba(CELLS))


def test_names_that_contradict_those_of_the_fit_are_not_saved(tmp_path):
    model = ToyClassifier(random_state=0).fit(CELLS)
    with pytest.raises(ModelError, match=r"are not those the model was fitted on .*another order"):
        model.save(tmp_path, list(CELLS.var_names)[::-1])


def test_a_save_that_fails_leaves_the_model_before(tmp_path, monkeypatch):
    model = ToyClassifier(random_state=0).fit(CELLS)
    model.save(tmp_path)
    before, synced = {p.name: p.read_bytes() for p in tmp_path.iterdir()}, []

    def full(fd):
        synced.append(fd)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(TrainingError, match=r"No space left.*is whole"):
        patch.setattr("os.fsync", full)
        model.set_params(lr=0.5).fit(CELLS).save(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


# Fits that fail.


def test_cells_that_are_refused_change_nothing(pretrained):
    model, bad = ToyClassifier(random_state=0).fit(CELLS), CELLS.copy()
    bad.X[0, 0] = np.nan
    wanted = model.predict_proba(CELLS)
    for X in (bad, bad.X):
        with pytest.raises(ValueError, match="NaN"):
            model.fit(X, CELLS.obs["cell_type"])
        assert np.array_equal(model.predict_proba(CELLS), wanted)
    with pytest.raises(DataError, match="align_genes"):
        model.predict(CELLS[:, ::-1].copy())


def test_a_fit_that_fails_leaves_no_model_that_answers():
    model = NetworkClassifier(epochs=5, patience=None, device="cpu").fit(CELLS)
    for fails in (model, clone(model)):
        with pytest.raises(TrainingError, match="the loss is"):
            fails.set_params(lr=1e30).fit(CELLS)
        with pytest.raises(NotFittedError):
            fails.predict_proba(CELLS)


def test_genes_are_written_once(tmp_path):
    model = ToyClassifier(random_state=0).fit(CELLS)
    assert (model.save(tmp_path) / "config.json").read_text().count("G17") == 0


def test_a_random_stream_is_not_saved(tmp_path):
    model = ToyClassifier(random_state=np.random.RandomState(0)).fit(CELLS)
    assert ToyClassifier.load(model.save(tmp_path)).random_state is None


# Checkpoints of fits.


def test_each_fit_has_its_own_checkpoint(tmp_path):
    model, other = ToyClassifier(checkpoint=tmp_path / "run.x"), ad.AnnData(CELLS.X + 1, CELLS.obs, CELLS.var)
    read = lambda adata, m=model: m._checkpoint_of_fit(m._read(adata, "cell_type", reset=True))  # noqa: E731
    paths = {read(CELLS), read(other), read(CELLS, ToyClassifier(lr=1.0, checkpoint=tmp_path / "run.x"))}
    assert len(paths) == 3 and all(p.parent == tmp_path and p.name.startswith("run.fit-") for p in paths)
    assert read(CELLS) in paths, "the same cells and settings find their own again"
    assert ToyClassifier()._checkpoint_of_fit(model._read(CELLS, "cell_type", reset=True)) is None


# Counts.


@dataclass(eq=False, repr=False)
class ToyCounts(TransferEstimator):
    """The mean profile of counts, or of their logarithms where ``logged``."""

    expects, nonnegative = "counts", True

    logged: bool = False

    def fit(self, X, y=None, *, genes=None):
        self.mean_ = np.asarray(self._read(X, genes=genes, reset=True).X.mean(0)).ravel()
        return self


def test_counts_and_logarithms_are_taken_where_they_are_expected_and_warned_of_elsewhere():
    counts, other = (
        example_cells(counts=True),
        ad.AnnData(CELLS.X, CELLS.obs, CELLS.var, layers={"counts": CELLS.X * 0}),
    )
    other.layers["counts"] = example_cells(counts=True).X
    wanted = ToyCounts().fit(counts).mean_
    for X in (counts.X, sparse.csr_matrix(counts.X), other):
        assert np.allclose(ToyCounts().fit(X).mean_, wanted)
    assert np.allclose(ToyCounts(logged=True).fit(CELLS).mean_, ToyCounts(logged=True).fit(other).mean_)
    with pytest.warns(DataWarning, match="look logged, and counts are expected"):
        ToyCounts().fit(CELLS.X)
    with pytest.warns(DataWarning, match="look like counts, and logged=True says"):
        ToyCounts(logged=True).fit(counts)
    for bad in (counts.X - 1, sparse.csr_matrix(counts.X - 1)):
        with pytest.raises(DataError, match="Negative values in data passed to ToyCounts"):
            ToyCounts().fit(bad)


# What a saved model and a checkpoint depend on.


def test_where_a_model_was_computed_is_not_saved(tmp_path):
    model = ToyClassifier(device="cpu", progress=True, checkpoint=tmp_path / "run", random_state=0).fit(CELLS)
    back = ToyClassifier.load(model.save(tmp_path / "model"))
    assert (back.device, back.progress, back.checkpoint) == ("auto", False, None)


def test_a_checkpoint_of_a_fit_depends_on_its_seed_and_not_on_where_it_runs(tmp_path):
    def path(seed=1, **settings):
        model = ToyClassifier(checkpoint=tmp_path / "run", **settings)
        return model._checkpoint_of_fit(model._read(CELLS, "cell_type", reset=True), seed=seed)

    assert path() != path(seed=2) and path() == path(progress=True, device="cpu")
    one, two = np.random.RandomState(0), np.random.RandomState(0)
    assert path(random_state=one) == path(random_state=two) == path(random_state=0)


def test_a_fit_draws_a_seed_of_31_bits_as_scikit_learn_does():
    assert ToyClassifier(random_state=0)._seed() == np.random.RandomState(0).randint(2**31)


def test_pretraining_again_forgets_all_that_a_clone_keeps():
    class Adapted(ToyFewShot):
        kept = ("pretrained_", "adapted_")

    model = Adapted().pretrain(CELLS)
    model.adapted_ = 1
    assert clone(model).adapted_ == 1 and not hasattr(model.pretrain(CELLS), "adapted_")
