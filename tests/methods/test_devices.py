"""No method and no arm of a study mixes tensors of two devices: each trains and predicts on a pretended accelerator."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.base import clone

from shared.evaluate import few_shot_accuracy
from shared.methods import guided_transfer as guided
from shared.methods.torch_method import TorchMethod
from shared.nn import meta
from shared.nn.blocks import encoder
from shared.nn.episodes import EpisodeSampler
from shared.studies import scpretrain, tmp
from shared.studies.leave_one_out import folds
from shared.studies.tmp import protocol
from shared.train import Config
from shared.train.episodes import MetaConfig, meta_train

from .elsewhere import PLACE, MixedDevicesError, elsewhere
from .examples import fitted, outputs
from .test_contract import estimators
from .toys import TOYS, ToyClassifier

SMALL = {"epochs": 2, "fit_epochs": 2, "episodes": 3, "fit_episodes": 3, "rounds": 1, "eval_episodes": 2}
TORCH = [kind for kind in (*estimators(), *TOYS) if issubclass(kind, TorchMethod)]
pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real accelerator, which finds the same"),
    pytest.mark.filterwarnings("ignore::shared.data.errors.DataWarning"),
]


@pytest.fixture
def there(monkeypatch):
    """The pretended accelerator, present as far as anybody asks."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_: None)
    with elsewhere() as tags:
        yield tags


def example_there(kind):
    """The class's example on the pretended accelerator, with as few steps as make sense."""
    example = kind.example()
    short = {name: value for name, value in SMALL.items() if name in example.model.get_params()}
    model = clone(example.model).set_params(device=str(PLACE), **short)
    return dataclasses.replace(example, model=model)


@pytest.mark.parametrize("kind", TORCH, ids=lambda k: k.__name__)
def test_a_method_stays_on_one_device(there, kind):
    example = example_there(kind)
    model = fitted(example)
    found = outputs(model, example.cells)
    assert found and all(np.asarray(value).size for value in found.values())
    assert there.kept, "nothing was computed there"


def made_study(seed, n_classes=4, n_rows=24, n_genes=30):
    """Classes with means of their own over genes from 0 to 1."""
    rng = np.random.default_rng(seed)
    X = np.repeat(rng.random((n_classes, n_genes)), n_rows, 0) + 0.15 * rng.standard_normal(
        (n_classes * n_rows, n_genes)
    )
    return X.clip(0, 1).astype(np.float32), np.repeat([f"type {i}" for i in range(n_classes)], n_rows)


CONFIG = tmp.StudyConfig(
    (12, 8),
    (8,),
    pretrain_episodes=3,
    finetune_episodes=2,
    n_query=4,
    eval_queries=4,
    eval_episodes=2,
    device=str(PLACE),
)
LEARNERS = {
    "prototypical": lambda seed: meta.Prototypical(encoder((30, 8), norm="layer")),
    "matching": lambda seed: meta.Matching(encoder((30, 8), norm="layer")),
    "MAML": lambda seed: meta.MAML(encoder((30, 8), norm="layer"), 4, inner_steps=1),
    "ANIL": lambda seed: meta.ANIL(encoder((30, 8), norm="layer"), 4, inner_steps=1),
}


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_a_learner_of_episodes_stays_on_one_device(there, make):
    learner, sampler = make(0), EpisodeSampler(*made_study(0), 4, 5, 4)
    meta_train(learner, sampler, MetaConfig(episodes=2, device=str(PLACE)))
    assert np.isfinite(few_shot_accuracy(learner, sampler, 2).scores).all() and there.kept


def test_the_arms_of_the_relation_network_stay_on_one_device(there):
    """Pre-trained, fine-tuned and evaluated, each arm of the study; and its published protocol."""
    source, few, test = map(made_study, range(3))
    found = tmp.transfer(source, few, test, CONFIG, (0, 1))
    nets = found.nets[tmp.Arm("none")]
    tmp.finetuned(tmp.untuned(found), test, few, CONFIG, (0, 1), cells=10)
    tmp.heads(few, test, CONFIG, (0, 1))
    tmp.batch_statistics({"net": nets}, test, CONFIG, (0, 1))
    tmp.open_set(few, test, CONFIG, (0,), {}, n_way=3, n_new=1)
    tmp.feature_correlations(nets, test[0])
    short = protocol.Stage(2, 1e-3)
    config = protocol.Protocol(30, (8,), (6,), n_way=3, n_query=4, log_every=2, islets=short, device=str(PLACE))
    tuned = protocol.finetune(None, "islets", 15, None, config, range(30), ("few", *few), 1)
    assert protocol.evaluated(config, 2, tuned, {"few": few, "test": test}, 1) and there.kept


def test_the_arms_of_pretraining_on_clusters_stay_on_one_device(there):
    """Encoders, networks, regressions on embeddings, and the published protocol, on a study that was left out."""
    sets, studies, _ = scpretrain.simulated(3, seed=1, n_cells=80, n_genes=40, labels=3, depth=300, effect=2.0)
    small = {"cells_per_cluster": (30, 20, 60), "width": 8, "rounds": 1, "epochs": 1, "batches": 2, "fit_epochs": 2}
    others, own = folds(sets, studies)["study 2"]
    learned = scpretrain.pretrained(others, 0, config=small | {"device": str(PLACE)}, n_genes=40)
    values = {arm: some[:1] for arm, some in scpretrain.tries().items()}
    assert scpretrain.set_rows(learned, own, 0, values=values, budgets=(20,), splits=1)
    assert there.kept


# The check on planted mistakes.


def forgets(name):
    """A toy that leaves something on the CPU."""

    class Forgets(ToyClassifier):
        def build(self, cells):
            net, weights = super().build(cells), torch.ones(cells.n_classes)
            if name == "a constant of the loss":
                net.register_forward_hook(lambda net, x, out: out * weights)
            return net

        def rows(self, X, device):
            return super().rows(X, "cpu" if name == "the rows to predict" else device)

        def forward(self, net, X, size=4096):
            if name == "the way back":
                net.to(self.device).eval()
                return net(*self.rows(X, torch.device(self.device))).detach().numpy()
            return super().forward(net, X, size)

    return Forgets


@pytest.mark.parametrize("what", ["a constant of the loss", "the rows to predict", "the way back"])
def test_what_is_left_on_the_cpu_is_found(there, what):
    example = example_there(forgets(what))
    with pytest.raises((MixedDevicesError, TypeError), match=r"on the CPU|device type tensor to numpy"):
        outputs(fitted(example), example.cells)


def test_numbers_and_row_numbers_may_come_from_the_cpu(there):
    x = torch.ones(3, 2, device=PLACE)
    for value in (x + 1, x * torch.tensor(2.0), x[torch.tensor([0, 2])], x.clone().copy_(torch.zeros(3, 2)), x.float()):
        assert value.device == PLACE and value.is_cuda
    assert x.cpu().numpy().sum() == 6 and x.cpu().device.type == "cpu"
    for mixed in (lambda: x + torch.ones(2), lambda: torch.ones(2) * x.sum(), lambda: torch.ones(3)[x[:, 0].long()]):
        with pytest.raises(MixedDevicesError):
            mixed()


def test_scouts_and_every_strategy_stay_on_one_device(there):
    X, y = made_study(0)
    config = Config(epochs=2, device=str(PLACE))
    model = guided.GuidedTransfer(encoder((30, 8)), keep_norm=True, config=config)
    assert model.scout((X,), y, 2, config=config).scouts_.n == 2
    fisher = {name: torch.rand_like(w) for name, w in model.module.named_parameters()}
    others = guided.Frozen(), guided.BitFit(), guided.L2SP(), guided.EWC(fisher), guided.LoRA()
    modes = (guided.Guided(model.guide_, mode, keep_norm=True) for mode in ("update", "gradient", "lr"))
    for strategy in (*others, *modes):
        model.strategy = strategy
        assert np.isfinite(model.fit((X,), y).predict_proba((X,))).all() and there.kept
