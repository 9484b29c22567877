"""One contract for every estimator of ``shared.methods``, and for a toy of each protocol of the kit.

A clause does not bind a class whose ``exempt`` names it; the reason stands there. What is particular to a method is in
the method's own test file.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import inspect
import os
import pkgutil
import signal
import subprocess
import sys
import textwrap
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from shared import methods
from shared.data.constraints import SettingError
from shared.data.errors import DataError, DataWarning
from shared.methods.base import TransferEstimator
from shared.methods.protocols import Basis, Generator, Pretrained, Translator
from shared.train.saved import ModelError

from .examples import arguments, fitted, outputs
from .toys import TOYS

KIT = {"base", "protocols", "torch_method", "keras_method"}
# Of scikit-learn's checks, those that find what the clauses below do not; all of them run nightly.
SAMPLE = {
    "check_dataframe_column_names_consistency",
    "check_dont_overwrite_attributes",
    "check_estimators_unfitted",
    "check_fit2d_1sample",
    "check_fit_score_takes_y",
    "check_n_features_in_after_fitting",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_readonly_memmap_input",
}
pytestmark = pytest.mark.filterwarnings("ignore::shared.data.errors.DataWarning")


def modules() -> list[str]:
    """Modules and packages of ``shared.methods`` that hold methods, by name."""
    names = [m.name for m in pkgutil.iter_modules(methods.__path__) if m.name not in KIT]
    try:
        import keras  # noqa: F401
    except ImportError:
        names = [n for n in names if n not in ("autoencoder_transfer", "beyond_fine_tuning")]
    return names


def estimators() -> list[type]:
    """Every estimator that a module of ``shared.methods`` defines, walked for."""
    found = {}
    for name in modules():
        package = importlib.import_module(f"shared.methods.{name}")
        parts = [package]
        if hasattr(package, "__path__"):
            parts += [
                importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)
            ]
        for part in parts:
            for kind in vars(part).values():
                if isinstance(kind, type) and issubclass(kind, TransferEstimator) and kind.__module__ == part.__name__:
                    found[kind.__name__] = kind
    return [kind for name, kind in sorted(found.items()) if not name.startswith("_")]


ALL = [*estimators(), *TOYS]


def exempt(kind, clause) -> str | None:
    """Why a clause does not bind a class, or None."""
    return next((c.__dict__["exempt"][clause] for c in kind.__mro__ if clause in c.__dict__.get("exempt", {})), None)


def every(clause, only=lambda kind: True):
    """Parametrize a test over the classes that the clause binds."""
    bound = [kind for kind in ALL if only(kind) and not exempt(kind, clause)]
    return pytest.mark.parametrize("kind", bound, ids=lambda k: k.__name__)


def setting(name):
    """Whether a class has this setting."""
    return lambda kind: name in kind._get_param_names()


def same(a, b, exact=True):
    """Whether two dicts of outputs are equal; numbers up to rounding unless `exact`."""
    close = lambda x, y: np.array_equal(x, y) if exact or x.dtype.kind not in "f" else np.allclose(x, y, atol=1e-4)  # noqa: E731
    return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)


_cache: dict = {}


@pytest.fixture(autouse=True)
def no_routing():
    """A library that another test imports may have turned scikit-learn's routing of metadata on for all."""
    with config_context(enable_metadata_routing=False):
        yield


@pytest.fixture
def example(kind):
    return kind.example()


@pytest.fixture
def model(kind):
    """The class's example fitted once, for tests that do not change it."""
    if kind not in _cache:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _cache[kind] = fitted(kind.example())
    return _cache[kind]


# What there is.


def test_every_module_of_methods_has_an_example():
    """A module defines estimators with examples, or no estimator at all."""
    without = [kind.__name__ for kind in ALL if kind.example.__func__ is TransferEstimator.example.__func__]
    assert not without, f"no example: {without}"
    homes = {kind.__module__.split(".")[2] for kind in estimators()}
    for name in set(modules()) - homes:
        tree = ast.parse(inspect.getsource(importlib.import_module(f"shared.methods.{name}")))
        bases = {ast.unparse(b) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for b in node.bases}
        assert not any(b.endswith(("Estimator", "Method", "Mixin", "Classifier", "Regressor")) for b in bases), name


def test_a_module_without_an_example_is_seen():
    class Forgotten(TransferEstimator):
        pass

    with pytest.raises(NotImplementedError, match="Forgotten has no example"):
        Forgotten.example()


@pytest.mark.parametrize("toy", TOYS, ids=lambda t: t.__name__)
def test_a_toy_has_thirty_lines_at_most(toy):
    assert len(textwrap.dedent(inspect.getsource(toy)).splitlines()) <= 31  # and its decorator


@every("settings")
def test_settings_that_cannot_be_used_are_refused_by_name(kind, example):
    args, more = arguments(example)
    for name in example.model.get_params(deep=False):
        with pytest.raises(SettingError, match=f"{name}=<object object"):
            clone(example.model).set_params(**{name: object()}).fit(*args, **more)


@every("checkpoint", lambda kind: hasattr(kind, "train") and hasattr(kind, "build"))
def test_every_network_can_be_resumed(kind):
    assert "checkpoint" in kind._get_param_names()


# scikit-learn's checks.


def run_checks(kind, names=None):
    example = kind.example()
    model, failed = example.model.set_params(**example.checked), []
    for estimator, check in estimator_checks_generator(model):
        name = check.func.__name__
        if (names is None or name in names) and not exempt(kind, name):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    check(estimator)
            except (Exception, AssertionError) as problem:
                if type(problem).__name__ not in ("Skipped", "SkipTest", "SkipTestWarning"):
                    failed.append(f"{name}: {type(problem).__name__}: {problem}")
    return failed


@every("sklearn")
def test_a_sample_of_scikit_learns_checks(kind):
    assert run_checks(kind, SAMPLE) == []


@pytest.mark.nightly
@every("sklearn")
def test_all_of_scikit_learns_checks(kind):
    assert run_checks(kind) == []


@every("names of columns", lambda kind: hasattr(kind, "get_feature_names_out"))
def test_an_embedding_can_be_a_table_whose_columns_have_names(model, example):
    table = copy.copy(model).set_output(transform="pandas").transform(example.cells.to_df())
    names = model.get_feature_names_out()
    assert list(table.columns) == list(names) and len(set(names)) == len(names)
    assert list(table.index) == list(example.cells.obs_names)
    assert np.array_equal(table, model.transform(example.cells.to_df()))


@every("names of columns", lambda kind: hasattr(kind, "get_feature_names_out"))
def test_what_is_predicted_does_not_depend_on_the_container_of_the_embedding(model, example):
    wanted = outputs(model, example.cells)
    with config_context(transform_output="pandas"):
        found = outputs(model, example.cells)
    assert same(wanted, found)


@every("names of columns", lambda kind: hasattr(kind, "get_feature_names_out"))
def test_an_embedding_has_no_names_before_there_is_one(example):
    with pytest.raises(NotFittedError):
        clone(example.model).get_feature_names_out()


# What goes in.

FORMS = {
    "DataFrame": lambda a: a.to_df(),
    "float64": lambda a: a.X.astype(np.float64),
    "Fortran order": lambda a: np.asfortranarray(a.X),
    "CSR": lambda a: sparse.csr_matrix(a.X),
    "CSC array": lambda a: sparse.csc_array(a.X),
    "COO": lambda a: sparse.coo_matrix(a.X),
    "sparse AnnData": lambda a: ad.AnnData(sparse.csr_matrix(a.X), obs=a.obs, var=a.var),
    "a view": lambda a: ad.concat([a, a[:5]], index_unique="-", merge="same")[: len(a)],
}


@every("inputs")
def test_every_kind_of_table_gives_the_same_model(kind, example, model):
    wanted = outputs(model, example.cells)
    for name, form in FORMS.items():
        if name not in exempt_forms(kind):
            X = form(example.cells)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert same(outputs(fitted(example, X, model), X), wanted, exact=False), name


def exempt_forms(kind):
    """Forms that a class cannot take: sparse ones where it has no use for zeros."""
    return () if kind.accept_sparse else ("CSR", "CSC array", "COO", "sparse AnnData")


@every("inputs", lambda kind: not issubclass(kind, Translator))
def test_a_table_in_its_file_is_read(kind, example, model, tmp_path):
    example.cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    try:
        assert same(outputs(model, backed), outputs(model, example.cells))
    finally:
        backed.file.close()


@every("gene order")
def test_genes_in_another_order_are_refused(kind, example, model):
    other = example.cells[:, ::-1].copy()
    with pytest.raises(ValueError, match="align_genes"):
        outputs(model, other)
    fewer = example.cells[:, :-1].copy()
    with pytest.raises(ValueError):
        outputs(model, fewer)


@every("gene order of the pre-training", lambda kind: issubclass(kind, Pretrained))
def test_a_fit_is_held_to_the_genes_of_the_pretraining(kind, example, model):
    with pytest.raises(DataError, match=r"pre-trained on .* genes"):
        fitted(example, example.cells[:, ::-1].copy(), model)


@pytest.mark.parametrize("kind", [k for k in ALL if issubclass(k, Basis)], ids=lambda k: k.__name__)
def test_a_basis_matches_genes_by_name(kind, example, model):
    assert same(outputs(model, example.cells[:, ::-1].copy()), outputs(model, example.cells), exact=False)
    assert outputs(model, example.cells[:, 3:].copy())["transform"].shape[0] == example.cells.n_obs


@every("scale", lambda kind: kind.expects == "log")
@pytest.mark.filterwarnings("default::shared.data.errors.DataWarning")
def test_counts_are_warned_of(kind, example, model):
    counts = example.cells.copy()
    counts.X = np.round(np.expm1(counts.X)).astype(np.float32)
    with pytest.warns(DataWarning, match="look like counts"):
        outputs(model, counts)
    with pytest.warns(DataWarning, match="look like counts"):
        fitted(example, counts, model)


@every("scale", lambda kind: kind.expects == "counts")
def test_logarithms_are_refused(kind, example, model):
    logs = example.cells.copy()
    logs.layers.clear()
    logs.X = np.log1p(logs.X).astype(np.float32)
    with pytest.raises(DataError, match="looks logged already"):
        outputs(model, logs)
    with pytest.raises(DataError, match="looks logged already"):
        fitted(example, logs, model)


def spoil(example, change):
    bad = example.cells.copy()
    change(bad)
    return bad


def put(value):
    def change(a):
        a.X[0, 0] = value

    return change


def one_class(a):
    a.obs["cell_type"] = "T"


def no_label(a):
    a.obs["cell_type"] = a.obs["cell_type"].astype(object).where(np.arange(len(a)) > 0)


def twice(a):
    a.var_names = [a.var_names[0], *a.var_names[:-1]]


REFUSED = {
    "NaN": (put(np.nan), "NaN"),
    "infinity": (put(np.inf), "infinity"),
    "a gene twice": (twice, "more than once"),
    "one class": (one_class, "one class"),
    "a missing label": (no_label, "no label for 1"),
}


@every("refusals")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused(kind, example, model, case):
    change, said = REFUSED[case]
    if case == "NaN" and kind.allow_nan is True:
        pytest.skip("takes NaN for what was not measured")
    if case in ("one class", "a missing label") and example.y != "cell_type":
        pytest.skip("takes no types")
    if issubclass(kind, Translator) and case not in ("NaN", "infinity"):
        pytest.skip("reads tables without obs")
    bad = spoil(example, change)
    with pytest.raises(ValueError, match=said):
        fitted(example, bad, model)
    if case in ("NaN", "infinity"):
        with pytest.raises(ValueError, match=said):
            outputs(model, bad)


@every("refusals", lambda kind: not issubclass(kind, Translator))
def test_an_empty_table_is_refused_and_one_cell_is_answered(kind, example, model):
    for X in (example.cells.X[:0], example.cells.X[:, :0]):
        with pytest.raises(ValueError, match=r"0 (sample|feature)"):
            model_of = clone(model)
            y = () if example.y is None else (np.array([])[: len(X)] if not len(X) else example.cells.obs[example.y],)
            model_of.fit(X, *y)
    one = outputs(model, example.cells[:1].copy())
    assert all(len(v) == 1 for v in one.values())


@every("refusals", lambda kind: not issubclass(kind, (Translator, Generator)))
def test_nothing_is_predicted_before_a_fit(kind, example):
    for name in ("predict", "predict_proba", "transform"):
        if hasattr(example.model, name):
            with pytest.raises((NotFittedError, ValueError), match="fit"):
                getattr(clone(example.model), name)(example.cells)


# What comes out again.


@every("score", lambda kind: hasattr(kind, "score"))
def test_score_takes_what_fit_takes(kind, example, model):
    y = example.cells.obs[example.y].to_numpy()
    wanted = model.score(example.cells.to_df(), y)
    assert model.score(example.cells, example.y) == wanted
    assert not is_classifier(model) or model.score(example.cells) == wanted > 0.6


@every("seed", setting("random_state"))
def test_one_seed_gives_one_model(kind, example, model):
    pretrained = fitted(example)
    assert same(outputs(pretrained, example.cells), outputs(model, example.cells))


@every("clone")
def test_a_clone_keeps_the_pretraining_and_forgets_the_fit(kind, example, model):
    other = clone(model)
    kept = {name for name in model.kept if hasattr(model, name)}
    assert set(other._fitted()) == kept and other.get_params() == model.get_params()
    assert all(getattr(other, name) is getattr(model, name) for name in kept)
    if issubclass(kind, Pretrained):
        assert "pretrained_" in kept
        assert same(outputs(fitted(example, model=other), example.cells), outputs(model, example.cells))


def flat(value, name=""):
    """Every number and word inside a fitted attribute."""
    if hasattr(value, "state_dict"):
        return flat(dict(value.state_dict()), name)
    if isinstance(value, dict):
        return [pair for k, v in value.items() for pair in flat(v, f"{name}.{k}")]
    if isinstance(value, (list, tuple)):
        return [(name, type(value))] + [pair for i, v in enumerate(value) for pair in flat(v, f"{name}.{i}")]
    if hasattr(value, "__dataclass_fields__"):
        return flat(vars(value), name)
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "detach"):
        array = np.asarray(value)
        return [(name, (type(value), str(array.dtype), array.shape, array.tolist()))]
    return [(name, (type(value), value))]


@every("save")
def test_every_fitted_attribute_is_saved(kind, example, model, tmp_path):
    genes = list(example.cells.var_names)
    back = kind.load(model.save(tmp_path / "one"), pd.Index(genes))
    assert repr(flat(back._fitted())) == repr(flat(model._fitted()))
    lost = {"device", "devices", "checkpoint", "progress"}
    settings = lambda m: {k: v for k, v in m.get_params().items() if k not in lost}  # noqa: E731
    assert settings(back) == settings(model)
    assert same(outputs(back, example.cells), outputs(model, example.cells))
    back.save(tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    with pytest.raises(ModelError, match="another order"):
        kind.load(tmp_path / "one", genes[::-1])
    if issubclass(kind, Pretrained):
        alone = clone(back)
        assert same(outputs(fitted(example, model=alone), example.cells), outputs(model, example.cells))
        clone(model).save(tmp_path / "three")
        assert kind.load(tmp_path / "three")._fitted().keys() == {"pretrained_"} | set(kind.kept) & set(vars(model))


@every("save", lambda kind: kind.accept_sparse)
def test_a_model_of_sparse_cells_is_saved(kind, example, model, tmp_path):
    cells = ad.AnnData(sparse.csr_matrix(example.cells.X), obs=example.cells.obs, var=example.cells.var)
    fit = fitted(example, cells, model)
    assert same(outputs(kind.load(fit.save(tmp_path)), cells), outputs(fit, cells))


@every("save", lambda kind: not issubclass(kind, Translator))
def test_a_model_of_unnamed_columns_is_saved_with_names(kind, example, tmp_path):
    if example.pretrain:
        pytest.skip("was pre-trained on named genes")
    model = fitted(example, example.cells.X)
    with pytest.raises(ModelError, match="none were named: pass genes="):
        model.save(tmp_path / "none")
    back = kind.load(model.save(tmp_path / "named", example.cells.var_names))
    assert same(outputs(back, example.cells.X), outputs(model, example.cells.X))
    with pytest.raises(ModelError, match="nothing was fitted"):
        clone(model).save(tmp_path / "unfitted")


# In the company of scikit-learn.


@every("search", lambda kind: not issubclass(kind, (Translator, Generator)))
def test_it_stands_in_a_search_over_arrays(kind, example, model):
    start = clone(model) if example.pretrain else clone(example.model)
    name = next((n for n in ("lr", "fit_lr", "k", "n_components") if n in start.get_params()), None)
    grid = {name: [start.get_params()[name], start.get_params()[name] * 2]} if name else {}
    args, more = arguments(example, example.cells.X)
    scoring = None if hasattr(kind, "score") else lambda estimator, X, y=None: float(estimator.transform(X).mean())
    search = GridSearchCV(start, grid, cv=KFold(2), scoring=scoring, error_score="raise").fit(*args, **more)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@every("pipeline", lambda kind: not issubclass(kind, (Translator, Generator)) and not kind.nonnegative)
def test_it_stands_behind_a_scaler(kind, example, model):
    start = clone(model) if example.pretrain else clone(example.model)
    X, *y = arguments(example, example.cells.to_df())[0]
    more = {f"{kind.__name__.lower()}__{k}": v for k, v in example.fit.items()}
    pipe = make_pipeline(StandardScaler(), start).fit(X, *y, **more)
    assert all(len(v) == len(X) for v in outputs(pipe, X).values())


# joblib replaces a worker that has grown, as one does that loads TensorFlow, and says so from a thread of its own.
# Raised there as an error, the warning would end the thread, and the search would wait for ever.
@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs were given to the executor")
@pytest.mark.nightly
@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_searches_in_two_processes_find_what_one_finds(backend):
    kind = representative(backend)
    example = kind.example()
    args, more = arguments(example, example.cells.X)
    run = lambda n: GridSearchCV(fitted(example), {"lr": [1e-3, 1e-2]}, cv=KFold(2), n_jobs=n).fit(*args, **more)  # noqa: E731
    one, two = (run(n).cv_results_["mean_test_score"] for n in (1, 2))
    assert np.array_equal(one, two)


def representative(backend):
    name = {"torch": "NetworkClassifier", "keras": "AutoencoderClassifier"}[backend]
    found = [kind for kind in ALL if kind.__name__ == name]
    if not found:
        pytest.skip("install the extra: pip install 'borrowed-strength[keras]'")
    return found[0]


# Interrupted.


class Killed(BaseException):
    pass


@contextlib.contextmanager
def killed_after(monkeypatch, writes):
    """Ends what runs after so many files were written."""
    replace, left = os.replace, [writes]

    def counting(a, b):
        replace(a, b)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counting)
        with pytest.raises(Killed):
            yield


@every("resume", setting("checkpoint"))
def test_a_killed_fit_goes_on_to_the_same_bytes(kind, example, model, tmp_path, monkeypatch):
    start = clone(model) if example.pretrain else clone(example.model)
    start.set_params(checkpoint=tmp_path / "run.safetensors")
    with killed_after(monkeypatch, 2):
        fitted(example, model=start)
    assert len(list(tmp_path.iterdir())) == 1
    again = fitted(example, model=start)
    assert same(outputs(again, example.cells), outputs(model, example.cells))
    assert not list(tmp_path.iterdir()), "a finished fit leaves no file"


@every("resume", lambda kind: issubclass(kind, Pretrained) and setting("checkpoint")(kind))
def test_a_killed_pretraining_goes_on_to_the_same_bytes(kind, example, model, tmp_path, monkeypatch):
    start = kind.example().model.set_params(checkpoint=tmp_path / "run.safetensors")
    with killed_after(monkeypatch, 1):
        clone(start).pretrain(*example.pretrain)
    start.pretrain(*example.pretrain)
    plain = {k: v for k, v in model.pretrained_.items() if k not in ("seconds", "history")}
    assert repr(flat({k: start.pretrained_[k] for k in plain})) == repr(flat(plain))


FRESH = """
import importlib, os, signal, sys, warnings
import numpy as np
warnings.simplefilter("ignore")
from tests.methods.examples import fitted, outputs
for line in sys.stdin:
    job, module, name, where = line.split("\\t")
    kind, where = getattr(importlib.import_module(module), name), where.strip()
    example = kind.example()
    if job == "load":
        model = kind.load(where)
    else:
        count, replace = [0], os.replace
        def counting(a, b):
            replace(a, b)
            count[0] += 1
            if job == "kill" and count[0] == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        os.replace = counting
        model = fitted(example, checkpoint=where + ".safetensors")
    np.savez(where + ".npz", **outputs(model, example.cells))
"""


def in_a_fresh_process(root, jobs):
    text = "".join("\t".join(map(str, job)) + "\n" for job in jobs)
    env = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run([sys.executable, "-c", FRESH], input=text, text=True, env=env, cwd=root, capture_output=True)


@pytest.mark.parametrize("backend", ["torch", pytest.param("keras", marks=pytest.mark.nightly)])
def test_saved_models_say_the_same_in_a_fresh_process(backend, root, tmp_path):
    representative(backend)
    kinds = [kind for kind in estimators() if hasattr(kind, "train") and (backend in inspect.getsource(kind.train))]
    for kind in kinds:
        if kind not in _cache:
            _cache[kind] = fitted(kind.example())
        _cache[kind].save(tmp_path / kind.__name__)
    done = in_a_fresh_process(root, [("load", k.__module__, k.__name__, tmp_path / k.__name__) for k in kinds])
    assert done.returncode == 0, done.stderr[-2000:]
    for kind in kinds:
        with np.load(tmp_path / f"{kind.__name__}.npz") as found:
            assert same(dict(found), outputs(_cache[kind], kind.example().cells)), kind.__name__


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a system with SIGKILL")
@pytest.mark.parametrize("backend", ["torch", pytest.param("keras", marks=pytest.mark.nightly)])
def test_a_killed_process_goes_on_to_the_same_bytes(backend, root, tmp_path):
    kind = representative(backend)
    job = (kind.__module__, kind.__name__, tmp_path / "run")
    assert in_a_fresh_process(root, [("kill", *job)]).returncode == -signal.SIGKILL
    assert not (tmp_path / "run.npz").exists() and list(tmp_path.iterdir())
    done = in_a_fresh_process(root, [("resume", *job)])
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "run.npz") as found:
        assert same(dict(found), outputs(fitted(kind.example()), kind.example().cells))
