"""Pre-training, four ways to tune, one result on every back end, and what is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone

pytest.importorskip("keras", reason="install the extra: pip install 'borrowed-strength[keras]'")

from shared.data.constraints import SettingError
from shared.data.errors import DataError
from shared.methods import keras_method
from shared.methods.autoencoder_transfer import (
    TUNING,
    AutoencoderClassifier,
    AutoencoderRegressor,
    autoencoder,
    compiled_encoder,
    stages,
)
from shared.nn import keras_net
from shared.nn.keras_net import LayerwiseAdam, Scale, keras
from shared.train.settings import TrainingError

SMALL = {"hidden": (16,), "code": 6, "pretrain_epochs": 4, "epochs": 6, "random_state": 0}
GENES = [f"g{i}" for i in range(30)]


@pytest.fixture(scope="module")
def source():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(120, 5)) @ rng.normal(size=(5, 30)) + 0.1 * rng.normal(size=(120, 30))).astype(np.float32)


@pytest.fixture(scope="module")
def target(source):
    return source[:40] * 2 + 1, np.where(source[:40, 0] > 0, "left", "right")


def quick(**more):
    return AutoencoderClassifier(**SMALL | more)


# The network.


def test_the_networks_have_the_shapes_they_are_named_for():
    net = autoencoder(30, (16, 12), 6, "sigmoid")
    assert [layer.name for layer in net.layers[1:]] == ["encode_0", "encode_1", "code", "decode_0", "decode_1", "genes"]
    assert [w.shape[-1] for w in net.get_weights()[::2]] == [16, 12, 6, 12, 16, 30]
    net.set_weights([w * 0 for w in net.get_weights()])
    assert (np.asarray(net(np.zeros((2, 30), np.float32))) == 0.5).all()


def test_the_divergence_is_the_closed_form():
    layer = keras_net.Sample(0.7)
    rng = np.random.default_rng(0)
    mean, log_var = rng.normal(size=(2, 9, 4)).astype(np.float32)
    out = layer([mean, log_var])
    # KL between normals, one dimension at a time, by its definition as an integral.
    z = np.linspace(-60, 60, 60001)
    kl = 0
    for m, v in zip(mean.ravel(), np.exp(log_var).ravel(), strict=True):
        p = np.exp(-((z - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v)
        kl += np.trapezoid(p * (np.log(p + 1e-300) + z**2 / 2 + np.log(2 * np.pi) / 2), z)
    assert float(layer.losses[0]) == pytest.approx(0.7 * kl / 9, rel=1e-4)
    assert np.allclose(out, mean)
    many = layer([np.tile(mean, (2000, 1)), np.tile(log_var, (2000, 1))], training=True)
    drawn = np.asarray(many).reshape(2000, *mean.shape)
    assert np.abs(drawn.mean(0) - mean).max() < 0.2 and np.abs(drawn.var(0) / np.exp(log_var) - 1).max() < 0.25


def test_a_factor_scales_the_step():
    def stepped(factors):
        net = autoencoder(30, (16,), 6)
        net.compile(LayerwiseAdam(1e-2), "mse")
        rng = np.random.default_rng(0)
        first = keras_net.initial([w.shape for w in net.get_weights()], rng)
        keras_net.restart(net, first, 1e-2, 0)
        net.optimizer.set_factors(factors)
        X = rng.normal(size=(8, 30)).astype(np.float32)
        net.train_on_batch(X, X)
        return [np.abs(a - b).max() for a, b in zip(first, net.get_weights(), strict=True)][::2]

    plain, scaled = stepped({}), stepped({"encode_0": 0.0, "code": 0.25})
    assert scaled[0] == 0 and scaled[1] == pytest.approx(plain[1] / 4, rel=1e-3) and scaled[2:] == plain[2:]


def test_without_factors_it_is_adam():
    after = []
    for optimizer in (LayerwiseAdam(1e-2), keras.optimizers.Adam(1e-2)):
        net = autoencoder(30, (16,), 6)
        net.set_weights(keras_net.initial([w.shape for w in net.get_weights()], np.random.default_rng(0)))
        net.compile(optimizer, "mse")
        X = np.random.default_rng(1).normal(size=(8, 30)).astype(np.float32)
        for _ in range(5):
            net.train_on_batch(X, X)
        after.append(net.get_weights())
    assert all(np.allclose(a, b, atol=1e-7) for a, b in zip(*after, strict=True))


# Pre-training and tuning.


def test_pretraining_lowers_the_error_and_is_kept(source, target):
    model = quick(pretrain_epochs=60, pretrain_lr=1e-2).pretrain(source)
    losses = model.pretrained_["losses"]
    assert losses[-1] < losses[0] / 2
    assert model.reconstruction_error(source).mean() == pytest.approx(losses[-1], rel=0.3)
    before = model.transform(source)
    assert before.shape == (120, 6) and (before >= 0).all()
    assert (clone(model).transform(source) == before).all()
    model.fit(*target)
    assert not hasattr(clone(model), "head_weights_")
    assert (clone(model).pretrained_["weights"][0] == model.pretrained_["weights"][0]).all()


@pytest.mark.parametrize("tuning", TUNING)
def test_what_moves_is_what_the_name_says(source, target, tuning):
    model = quick(tuning=tuning).pretrain(source)
    first = [w.copy() for w in model.pretrained_["weights"][:4]]
    model.fit(*target)
    moved = [float(np.abs(a - b).max()) for a, b in zip(first, model.encoder_weights_, strict=True)]
    assert (max(moved) == 0) == (tuning == "frozen")
    assert len(model.losses_) == model.epochs
    if tuning == "discriminative":
        plain = quick(tuning="full").pretrain(source).fit(*target)
        assert np.abs(first[0] - plain.encoder_weights_[0]).max() > 2 * moved[0]
    assert all((a == b).all() for a, b in zip(first, model.pretrained_["weights"], strict=False)), "the start was lost"


def test_frozen_codes_are_those_of_the_source_encoder(source, target):
    model = quick(tuning="frozen").pretrain(source).fit(*target)
    scaled = Scale.fit(target[0], "standard")(target[0])
    W0, b0, W1, b1 = model.pretrained_["weights"][:4]
    by_hand = np.maximum(np.maximum(scaled @ W0 + b0, 0) @ W1 + b1, 0)
    assert np.allclose(model.transform(target[0]), by_hand, atol=1e-5)


def test_pretraining_matters_and_scratch_differs(source, target):
    fitted, scratch = quick().pretrain(source).fit(*target), quick().fit(*target)
    assert not np.allclose(fitted.predict_proba(target[0]), scratch.predict_proba(target[0]))


def test_the_target_is_scaled_by_its_own_or_by_the_source(source, target):
    X, y = target
    own = quick().pretrain(source).fit(X, y)
    assert np.allclose(own.tuned_scale_.centre, X.mean(0), atol=1e-5)
    unlabelled = quick().pretrain(source).adapt(X[:25]).fit(X, y)
    assert np.allclose(unlabelled.tuned_scale_.centre, X[:25].mean(0), atol=1e-5)
    assert np.allclose(clone(unlabelled).fit(X[:9], y[:9]).tuned_scale_.centre, X[:25].mean(0), atol=1e-5)
    pooled = quick(per_study=False).pretrain(source).adapt(X).fit(X, y)
    assert np.allclose(pooled.tuned_scale_.centre, source.mean(0), atol=1e-5)


def test_studies_are_scaled_one_by_one(source, monkeypatch):
    """What reaches the training loop, not what comes out of it: losses of the two ways can be near each other."""
    seen = []

    def watched(net, X, *rest):
        seen.append(X.copy())
        return keras_net.train(net, X, *rest)

    monkeypatch.setattr(keras_method, "train", watched)
    shifted = source * 3 + 10
    quick(pretrain_epochs=1).pretrain([source, shifted])
    quick(pretrain_epochs=1, per_study=False).pretrain([source, shifted])
    each, pooled = seen
    alone = (source - source.mean(0)) / source.std(0)
    assert np.allclose(each, np.vstack([alone, alone]), atol=1e-3)
    together = np.vstack([source, shifted])
    assert np.allclose(pooled, (together - together.mean(0)) / together.std(0), atol=1e-3)
    assert np.abs(pooled[120:].mean(0) - pooled[:120].mean(0)).max() > 0.5, "the gap between the studies is gone"


@pytest.mark.parametrize("kind", ["standard", "unit", None])
def test_scales_by_hand(source, kind):
    X = source.copy()
    X[:, 3] = 7
    scaled = Scale.fit(X, kind)(X)
    assert np.isfinite(scaled).all() and (scaled[:, 3] == (7 if kind is None else 0)).all()
    rest = np.delete(scaled, 3, 1)
    if kind == "standard":
        assert np.allclose(rest.mean(0), 0, atol=1e-5) and np.allclose(rest.std(0), 1, atol=1e-4)
    if kind == "unit":
        assert rest.min() == 0 and rest.max() == 1 and Scale.fit(X, kind)(X * 100).max() == 1


def test_a_sigmoid_cannot_rebuild_standardised_genes(source):
    settings = {"pretrain_epochs": 80, "pretrain_lr": 1e-2}
    linear = quick(**settings).pretrain(source).reconstruction_error(source).mean()
    sigmoid = quick(**settings, output="sigmoid").pretrain(source)
    assert sigmoid.reconstruct(source).min() >= 0
    assert sigmoid.reconstruction_error(source).mean() > 0.4 > linear


def test_noise_blanks_inputs_only_while_pretraining(source):
    calm, noisy = quick().pretrain(source), quick(noise=0.4).pretrain(source)
    assert noisy.pretrained_["losses"] != calm.pretrained_["losses"]
    assert (noisy.transform(source) == noisy.transform(source)).all()
    assert noisy.pretrained_["losses"] == quick(noise=0.4).pretrain(source).pretrained_["losses"]


def test_a_variational_code_goes_to_zero_when_its_charge_is_high(source):
    free = quick(variational=True, beta=1e-6, pretrain_epochs=60, pretrain_lr=1e-2).pretrain(source).transform(source)
    charged = (
        quick(variational=True, beta=100.0, pretrain_epochs=60, pretrain_lr=1e-2).pretrain(source).transform(source)
    )
    assert np.abs(charged).mean() < np.abs(free).mean() / 3 and (free < 0).any()


def test_the_penalty_is_charged_and_costs_no_new_network(source, target):
    X, y = target
    compiled_encoder.cache_clear()
    sizes = [np.abs(quick(l2=l2, epochs=60, lr=1e-2).fit(X, y).head_weights_[0]).mean() for l2 in (0.0, 0.1, 10.0)]
    assert sizes[0] > 2 * sizes[1] > 4 * sizes[2]
    assert compiled_encoder.cache_info().misses == 1
    head = keras_net.Head(2, name="head")
    head.build((None, 3))
    W = np.arange(6, dtype=np.float32).reshape(3, 2)
    head.set_weights([W, np.zeros(2, np.float32), np.float32(0.5)])
    head(X[:4, :3])
    assert float(head.losses[0]) == pytest.approx(0.5 * (W**2).sum())
    assert len(head.trainable_weights) == 2


@pytest.mark.parametrize("n_classes", [2, 3])
def test_heads_for_classes(source, n_classes):
    y = np.digitize(source[:, 0], np.quantile(source[:, 0], np.arange(1, n_classes) / n_classes))
    model = quick(epochs=80, lr=1e-2).pretrain(source).fit(source, y)
    proba = model.predict_proba(source)
    assert proba.shape == (120, n_classes) and np.allclose(proba.sum(1), 1, atol=1e-5)
    assert model.score(source, y) > 0.9
    assert (model.predict(source) == model.classes_[proba.argmax(1)]).all()


@pytest.mark.parametrize("columns", [None, 2])
def test_heads_for_numbers(source, columns):
    y = source[:, 0] * 5 + 100 if columns is None else source[:, :columns] * 5 + 100
    model = AutoencoderRegressor(**SMALL | {"epochs": 100, "lr": 1e-2}).pretrain(source).fit(source, y)
    assert model.predict(source).shape == y.shape and model.score(source, y) > 0.8


def test_sparse_and_named_input_say_the_same(source, target):
    X, y = np.maximum(target[0], 0), target[1]
    dense = quick().pretrain(np.maximum(source, 0)).fit(X, y)
    thin = quick().pretrain(sparse.csr_matrix(np.maximum(source, 0))).fit(sparse.csr_matrix(X), y)
    assert np.allclose(dense.predict_proba(X), thin.predict_proba(sparse.csr_matrix(X)), atol=1e-5)
    named = quick().pretrain(pd.DataFrame(source, columns=GENES))
    with pytest.raises(ValueError, match="in another order"):
        named.fit(pd.DataFrame(X, columns=GENES[::-1]), y)


def test_a_saved_regressor_keeps_its_units(tmp_path, source):
    model = AutoencoderRegressor(**SMALL).fit(source, source[:, :2] * 100)
    model.save(tmp_path / "m", GENES)
    assert np.allclose(AutoencoderRegressor.load(tmp_path / "m", GENES).predict(source), model.predict(source))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tuning": "melted"}, "tuning='melted' is not known"),
        ({"scaling": "log"}, "scaling='log' is not known"),
        ({"output": "tanh"}, "output='tanh' is not known"),
        ({"code": 0}, "code=0 is not a whole number"),
        ({"epochs": 1.5}, "epochs=1.5 is not a whole number"),
        ({"noise": 1}, "noise=1 is no share"),
    ],
)
def test_settings_that_cannot_be_used_are_named(source, target, settings, says):
    with pytest.raises(ValueError, match=says):
        quick(**settings).pretrain(source)
    with pytest.raises(ValueError, match=says):
        quick(**settings).fit(*target)


def test_data_that_do_not_fit_are_named(source, target):
    with pytest.raises(ValueError, match=r"30 genes of before \(29 columns"):
        quick().pretrain([source, source[:, :29]])
    with pytest.raises(ValueError, match="at least one matrix"):
        quick().pretrain([])
    a, b = (pd.DataFrame(source, columns=names) for names in (GENES, GENES[::-1]))
    with pytest.raises(ValueError, match="in another order"):
        quick().pretrain([a, b])
    with pytest.raises(ValueError, match="pre-trained on 30 genes, and these 29"):
        quick().pretrain(source).fit(target[0][:, :29], target[1])
    with pytest.raises(ValueError, match="one class only"):
        quick().fit(target[0], np.repeat("left", 40))
    with pytest.raises(ValueError, match="NaN"):
        quick().pretrain(np.where(source > 3, np.nan, source))
    with pytest.raises(ValueError, match="call pretrain first"):
        quick().fit(*target).reconstruct(target[0])
    with pytest.raises(ValueError, match="changed after pretrain"):
        quick().pretrain(source).set_params(code=5).fit(*target)
    with pytest.raises(FloatingPointError, match="lower lr, or scale"):
        quick(scaling=None, lr=1e30).fit(target[0] * 1e20, target[1])
    with pytest.raises(FloatingPointError, match="lower lr, or scale"):
        quick(scaling=None).pretrain(source * np.float32(1e30))


# One seed, and every back end.

RUN = """
import json, sys, numpy as np
sys.path.insert(0, {root!r})
import shared
from shared.methods.autoencoder_transfer import AutoencoderClassifier, keras
rng = np.random.default_rng(0)
S = (rng.normal(size=(120, 5)) @ rng.normal(size=(5, 30))).astype(np.float32)
y = np.where(S[:, 0] > 0, "a", "b")
said = {{}}
few = {{"pretrain_epochs": 5, "epochs": 8, "random_state": 3}}
for tuning in ("frozen", "full", "gradual", "discriminative"):
    m = AutoencoderClassifier((16,), 6, tuning=tuning, **few).pretrain(S).fit(S, y)
    said[tuning] = m.pretrained_["losses"] + m.losses_
print(json.dumps([keras.backend.backend(), keras.__version__, said]))
"""


def losses_on(root, backend, first_on_path=None):
    path = os.pathsep.join(map(str, filter(None, [first_on_path])))
    env = dict(os.environ, KERAS_BACKEND=backend, OMP_NUM_THREADS="1", PYTHONPATH=path, JAX_PLATFORMS="cpu")
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(root=str(root))], capture_output=True, text=True, env=env, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def on_tensorflow(root):
    return losses_on(root, "tensorflow")


@pytest.mark.nightly
def test_two_processes_give_the_same_bytes(root, on_tensorflow):
    assert losses_on(root, "tensorflow") == on_tensorflow


@pytest.mark.nightly
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_every_back_end_has_the_same_losses(root, on_tensorflow, backend):
    pytest.importorskip(backend, reason=f"the back end {backend} is not installed")
    name, _, said = losses_on(root, backend)
    assert name == backend
    for tuning, losses in on_tensorflow[2].items():
        assert np.abs(np.subtract(said[tuning], losses)).max() < 1e-4, tuning


@pytest.mark.nightly
@pytest.mark.network
def test_an_older_keras_has_the_same_losses(root, on_tensorflow, tmp_path):
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path), "keras==3.10.0"]
    if subprocess.run(words, capture_output=True, timeout=300).returncode:
        pytest.skip("Keras 3.10 cannot be fetched: the package index cannot be reached")
    _, version, said = losses_on(root, "tensorflow", tmp_path)
    assert version == "3.10.0"
    for tuning, losses in on_tensorflow[2].items():
        assert np.abs(np.subtract(said[tuning], losses)).max() < 1e-4, tuning


def test_stages_of_gradual_tuning_share_the_epochs_and_open_from_the_top():
    found = stages("gradual", 2, 10, 2.0)
    assert [epochs for _, epochs in found] == [3, 3, 2, 2]
    assert [sorted(closed) for closed, _ in found] == [
        ["code", "encode_0", "encode_1"],
        ["encode_0", "encode_1"],
        ["encode_0"],
        [],
    ]
    assert stages("discriminative", 1, 5, 2.0) == [({"encode_0": 0.25, "code": 0.5}, 5)]
    assert stages("full", 1, 5, 2.0) == stages("frozen", 1, 5, 2.0) == [({}, 5)]


LIGHT = """
import sys, tempfile
import numpy as np
from shared.methods.autoencoder_transfer import AutoencoderClassifier
from shared.methods.beyond_fine_tuning import TwoOmics
X, y = np.random.default_rng(0).normal(size=(20, 6)), np.repeat(["a", "b"], 10)
folder, few = tempfile.mkdtemp(), {"epochs": 2, "random_state": 0}
for model in (AutoencoderClassifier((4,), 2, pretrain_epochs=2, checkpoint=folder + "/run", **few), TwoOmics(3, **few)):
    if hasattr(model, "pretrain"):
        model.pretrain(X)
    model.fit(X, y).save(folder, [f"g{i}" for i in range(6)])
    assert (type(model).load(folder).predict(X) == model.predict(X)).all()
assert "torch" not in sys.modules, "torch came along"
"""


@pytest.mark.nightly
def test_keras_methods_need_no_torch(root):
    """Not to train, nor to resume, save, load and predict."""
    env = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", LIGHT], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-400:]


# Killed and resumed.


class Killed(BaseException):
    pass


@pytest.fixture
def kill(monkeypatch):
    """Ends a run after so many blocks of batches; each block is one batch here, so that runs end inside an epoch."""

    def after(blocks, run):
        keep, left = keras_method.Kept.keep, [blocks]

        def counting(self, net, losses, write):
            keep(self, net, losses, True)
            left[0] -= 1
            if not left[0]:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(keras_method.Kept, "keep", counting)
            with pytest.raises(Killed):
                run()

    monkeypatch.setattr(keras_net, "BLOCK", 1)
    return after


@pytest.mark.parametrize("blocks", [1, 5, 13])
def test_a_killed_run_with_noise_and_stages_goes_on_to_the_same_bytes(source, target, tmp_path, kill, blocks):
    """Dropout, the drawn code, the order of rows, Adam's moments and the stage of unfreezing all go on."""
    how = {"noise": 0.3, "variational": True, "tuning": "gradual", "batch_size": 8, "pretrain_batch_size": 30}
    wanted = quick(**how).pretrain(source).fit(*target)
    path = tmp_path / "run.safetensors"
    start = quick(**how, checkpoint=path)
    kill(blocks, lambda: clone(start).pretrain(source))
    start.pretrain(source)
    assert start.pretrained_["losses"] == wanted.pretrained_["losses"]
    assert all(np.array_equal(a, b) for a, b in zip(start.pretrained_["weights"], wanted.pretrained_["weights"]))
    kill(blocks, lambda: clone(start).fit(*target))
    assert len(list(tmp_path.iterdir())) == 2
    start.fit(*target)
    assert list(tmp_path.iterdir()) == [path] and start.losses_ == wanted.losses_
    assert np.array_equal(start.predict_proba(target[0]), wanted.predict_proba(target[0]))


def test_a_finished_pretraining_is_read_and_that_of_another_run_refused(source, tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    first = quick(checkpoint=path).pretrain(source)
    before = path.read_bytes()
    monkeypatch.setattr(keras_net, "_steps", lambda net: None)  # nothing is left to train
    again = quick(checkpoint=path, epochs=3, tuning="frozen").pretrain(source)
    assert all(np.array_equal(a, b) for a, b in zip(first.pretrained_["weights"], again.pretrained_["weights"]))
    assert path.read_bytes() == before
    for other, rows in (({}, source[1:]), ({"random_state": 1}, source), ({"noise": 0.1}, source)):
        with pytest.raises(TrainingError, match=r"another run .* delete the file"):
            quick(checkpoint=path, **other).pretrain(rows)
    path.write_bytes(before[:100])
    with pytest.raises(TrainingError, match="damaged"):
        quick(checkpoint=path).pretrain(source)


@pytest.mark.parametrize("changed", [{"variational": True}, {"scaling": "centre"}, {"hidden": (9,)}, {"code": 5}])
def test_a_setting_changed_after_pretraining_is_refused_and_one_changed_after_fitting_changes_no_answer(
    source, target, changed
):
    model = quick().pretrain(source)
    codes, rebuilt = model.transform(target[0]), model.reconstruct(target[0])
    with pytest.raises(SettingError, match="hidden, code, variational or scaling was changed after pretrain"):
        clone(model).set_params(**changed).fit(*target)
    before = clone(model).set_params(**changed)
    assert np.array_equal(before.transform(target[0]), codes) and np.array_equal(before.reconstruct(target[0]), rebuilt)
    fitted = clone(model).fit(*target)
    answers = fitted.predict_proba(target[0])
    assert np.array_equal(fitted.set_params(**changed).predict_proba(target[0]), answers)
    assert len(fitted.get_feature_names_out()) == fitted.transform(target[0]).shape[1]


def test_what_was_adapted_is_held_to_its_genes_and_forgotten_by_a_new_pretraining(source, target):
    X, y = target
    genes = [f"G{i}" for i in range(X.shape[1])]
    model = quick().adapt(X, genes=genes)
    with pytest.raises(DataError, match=r"adapted on .* genes.*another order"):
        clone(model).fit(X, y, genes=genes[::-1])
    with pytest.raises(SettingError, match="scaling='log'"):
        quick(scaling="log").adapt(X)
    with pytest.raises(SettingError, match="scaling='unit' was set after adapt: adapt again"):
        clone(model).set_params(scaling="unit").fit(X, y, genes=genes)
    assert not hasattr(model.pretrain(source, genes=genes), "adapted_")
    with pytest.raises(SettingError, match="scaling was changed after pretrain"):
        model.set_params(scaling="unit").adapt(X, genes=genes)
