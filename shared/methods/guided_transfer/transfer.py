"""Guided transfer of any torch module, used as an estimator: scouts, a guide, fine-tuning and prediction."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from shared.data.constraints import Flag, OneOf, Whole, check
from shared.data.errors import DataError
from shared.methods.guided_transfer.finetuning import classify_step, finetune, rest
from shared.methods.guided_transfer.guide import NORMALISE, Guide
from shared.methods.guided_transfer.scouts import send_scouts
from shared.methods.guided_transfer.steps import MODES
from shared.methods.guided_transfer.strategies import Full, Guided
from shared.methods.torch_method import seeded
from shared.train import Config, resolve_device
from shared.train.batches import Table

CHUNK = 256  # cells at a time in prediction


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
        See :func:`shared.methods.guided_transfer.finetuning.finetune`.
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
        raise DataError(
            "there is no guide: call scout first, set guide_, or make it with the strategy Full to train without"
        )
