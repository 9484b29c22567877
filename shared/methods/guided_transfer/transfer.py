"""Guided transfer of any torch module: scouts, a guide, and fine-tuning by it or by another strategy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize

from shared.data.constraints import Flag, OneOf, Whole, check, require
from shared.data.errors import DataError
from shared.methods.guided_transfer.guide import NORMALISE, Guide
from shared.methods.guided_transfer.scouts import send_scouts
from shared.methods.guided_transfer.steps import MODES
from shared.methods.guided_transfer.strategies import Full, Guided
from shared.methods.torch_method import ONE_PROCESS, seeded
from shared.train import Config, History, fit, resolve_device
from shared.train.batches import Table

CHUNK = 256  # cells at a time in prediction


def classify_step(net: torch.nn.Module, *batch: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of a batch: what the network takes of each cell, then int64 classes."""
    *inputs, target = batch
    return cross_entropy(net(*inputs), target)


def finetune(
    net: torch.nn.Module,
    encoder: torch.nn.Module,
    strategy: Full,
    columns: Sequence,
    config: Config | None = None,
    *,
    step: Callable = classify_step,
    keep_statistics: bool = True,
    **more,
) -> History:
    """Train a network, in place, by a strategy.

    Parameters
    ----------
    net, encoder : torch.nn.Module
        A network, and the pre-trained part of it.
    strategy : shared.methods.guided_transfer.strategies.Full
        Or what extends it: Frozen, BitFit, L2SP, EWC, LoRA, Guided.
    columns, config, step, more
        As :func:`shared.train.fit` takes them.
    keep_statistics : bool
        Running statistics of the encoder's norms stay those of its pre-training, and are what it normalises by, in
        every strategy alike: no strategy speaks of them, and few cells have none worth the name.

    Returns
    -------
    shared.train.History
    """
    require(ONE_PROCESS, devices=1 if config is None else config.devices)
    plan = strategy(net, encoder)

    def planned(net, *batch):
        if net.training:
            rest(encoder, plan.evaluates, keep_statistics)
        answer = step(net, *batch)
        if plan.penalty is None or not net.training:  # validation is by the loss alone
            return answer
        loss, numbers = answer if isinstance(answer, tuple) else (answer, {})
        return loss + plan.penalty(), numbers

    history = fit(net, planned, columns, config, on_optimizer=_Prepared(strategy, plan), **more)
    for module in encoder.modules():
        if parametrize.is_parametrized(module, "weight"):  # what LoRA added becomes part of the weight
            parametrize.remove_parametrizations(module, "weight")
    return history


class _Prepared:
    """What the loop does with its optimiser before a strategy is trained, and how it tells its checkpoints."""

    def __init__(self, strategy, plan):
        self.about, self.plan = strategy.about, plan

    def __call__(self, optimizer, net):
        if self.plan.on_optimizer is not None:
            self.plan.on_optimizer(optimizer, net)


def rest(encoder: torch.nn.Module, whole: bool, statistics: bool) -> None:
    """Evaluation mode for an encoder, for those of its norms that have running statistics, or for nothing."""
    for module in encoder.modules():
        if whole or (statistics and getattr(module, "running_mean", None) is not None):
            module.training = False


@dataclass(eq=False)
class GuidedTransfer:
    """Fine-tune any pre-trained module on few cells, its weights guided by how far scouts moved them.

    It is used as an estimator, and is none of the kit's: those build their network from settings, so that it can be
    saved without unpickling; here it is whatever the caller has, and reads what that network reads. ::

        model = GuidedTransfer(encoder).scout((X,), cluster(X)).fit((few,), types)
        model.predict((query,))

    Parameters
    ----------
    module : torch.nn.Module
        Pre-trained; copied, never changed. What has ``requires_grad=False`` is neither scouted nor trained: all but one
        block, the last norm and the head in the paper's code, though the paper tells of the whole encoder.
    head : callable, optional
        ``head(module, n_classes)`` gives a network that holds the module and a head with new weights, such as
        :class:`shared.methods.scbert.CellTypeNet`. Without it a linear layer reads what the module gives.
    strategy : Full, optional
        Another way to train, such as :class:`~shared.methods.guided_transfer.strategies.L2SP`; without it the guide.
    mode, keep_norm
        Of the guide: see :class:`shared.methods.guided_transfer.steps.GuidedSteps`.
    normalise, temperature
        See :meth:`shared.methods.guided_transfer.guide.Guide.of`.
    guide_head : bool
        Guide the head too, where scouts' heads are as large: the paper says that the guide is of the encoder, its code
        has guides with the head and without.
    keep_statistics : bool
        See :func:`finetune`.
    config : shared.train.Config
        Of fine-tuning, and of the scouts unless they are given their own.
    seed : int
        Heads, pairs of clusters, order of the cells.

    Attributes
    ----------
    scouts_ : Scouts
        After :meth:`scout`; ``scouts_.histories`` tell whether their tasks were learned.
    guide_ : Guide
        Made of the scouts when it is asked for; or set it, to one that was loaded or shuffled.
    network_ : torch.nn.Module
        After :meth:`fit`, on the CPU, in evaluation mode.
    classes_, history_
    """

    module: torch.nn.Module
    head: Callable[[torch.nn.Module, int], torch.nn.Module] | None = None
    strategy: Full | None = None
    mode: str = "update"
    keep_norm: bool = False
    normalise: str = "minmax"
    temperature: str | float = "room"
    guide_head: bool = False
    keep_statistics: bool = True
    config: Config = field(default_factory=Config)
    seed: int = 0

    def __post_init__(self):
        flags = dict.fromkeys(("keep_norm", "guide_head", "keep_statistics"), Flag())
        check(vars(self), flags | {"mode": OneOf(*MODES), "normalise": OneOf(*NORMALISE), "seed": Whole()})

    def scout(self, columns: Sequence, clusters, n_scouts: int = 16, **how) -> GuidedTransfer:
        """Send scouts to pairs of clusters of unlabelled cells.

        Parameters
        ----------
        columns, clusters, n_scouts, how
            See :func:`shared.methods.guided_transfer.scouts.send_scouts`. Each scout has a head of its own, and is
            trained as `config` of this model says, unless another is given.
        """
        net, path = self.network(2, columns)

        def step(net, *batch):
            if net.training:
                rest(net.get_submodule(path), False, self.keep_statistics)
            return classify_step(net, *batch)

        def new_head(net):
            for name, module in net.named_modules():
                if not f"{name}.".startswith(f"{path}.") and hasattr(module, "reset_parameters"):
                    module.reset_parameters()

        how = {"seed": self.seed, "new_head": new_head, "config": self.config} | how
        self.scouts_ = send_scouts(net, step, columns, clusters, n_scouts, **how)
        self._guide = None
        return self

    @property
    def guide_(self) -> Guide:
        """The guide of the scouts, or the one that was set."""
        if getattr(self, "_guide", None) is None:
            check_scouted(self)
            guide, path = Guide.of(self.scouts_, self.normalise, self.temperature), self._path
            head = [name for name in guide if not name.startswith(f"{path}.")]
            return guide if self.guide_head or not head else guide.without(*head)
        return self._guide

    @guide_.setter
    def guide_(self, guide: Guide):
        self._guide = guide

    def network(self, n_classes: int, columns: Sequence) -> tuple[torch.nn.Module, str]:
        """A copy of the module with a new head, and the module's name in it; a linear head is as wide as it answers."""

        def make():
            encoder = copy.deepcopy(self.module)
            if self.head is not None:
                net = self.head(encoder, n_classes)
            else:
                with torch.no_grad():
                    table = Table([c[:2] for c in columns], torch.device("cpu"), "columns")
                    width = encoder.cpu().eval()(*table.take(torch.arange(table.rows))).shape[-1]
                net = torch.nn.Sequential(encoder, torch.nn.Linear(width, n_classes))
            path = next((name for name, m in net.named_modules() if m is encoder), None)
            if not path:
                raise DataError("the network that head= gave does not hold the module it was given, below itself")
            return net, path

        net, self._path = seeded(make, self.seed)
        return net, self._path

    def fit(self, columns: Sequence, y, *, val=None) -> GuidedTransfer:
        """Train on labelled cells.

        Parameters
        ----------
        columns : sequence of tensor, ndarray or CSR matrix, cells × ...
            What the network takes of each cell: ``(X,)``, or tokens and genes.
        y : array of str or int, cells
            Classes.
        val : tuple of such columns and classes, optional
            To stop by, where ``config`` has ``patience``.
        """
        self.classes_, target = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"y holds {len(self.classes_)} classes: a classifier needs two")
        net, path = self.network(len(self.classes_), columns)
        strategy = Guided(self.guide_, self.mode, self.keep_norm) if self.strategy is None else self.strategy
        if val is not None:
            *held, names = *val[0], np.asarray(val[1])
            if not np.isin(names, self.classes_).all():
                raise DataError("val holds classes that y does not: leave their cells out of val")
            val = (*held, np.searchsorted(self.classes_, names))
        parts = [*columns, target]
        config = replace(self.config, seed=self.seed)
        self.history_ = seeded(
            lambda: finetune(
                net, net.get_submodule(path), strategy, parts, config, val=val, keep_statistics=self.keep_statistics
            ),
            self.seed,
        )
        self.network_ = net.cpu().eval()
        return self

    def predict_proba(self, columns: Sequence) -> np.ndarray:
        """Probability of each class: float32, cells × classes, columns as in ``classes_``."""
        if not hasattr(self, "network_"):
            raise DataError("nothing was fitted: call fit first")
        place = resolve_device(self.config.device)
        table, net = Table(columns, torch.device("cpu"), "columns"), self.network_.to(place)
        with torch.inference_mode():
            batches = map(table.take, torch.arange(table.rows).split(CHUNK))
            parts = [net(*(column.to(place) for column in batch)).cpu() for batch in batches]
        net.cpu()
        return torch.cat(parts).softmax(1).numpy()

    def predict(self, columns: Sequence) -> np.ndarray:
        """The most probable class of each cell."""
        return self.classes_[self.predict_proba(columns).argmax(1)]


def check_scouted(model: GuidedTransfer) -> None:
    """Refuse a guide where no scout was sent."""
    if not hasattr(model, "scouts_"):
        raise DataError("there is no guide: call scout first, set guide_, or give strategy=Full() to train without")
