"""Ways to fine-tune a pre-trained encoder on few cells, under one interface, so that all get the same tuning.

A strategy is called with a network and the encoder in it. It changes what is trained, in place, and gives a
:class:`Plan`: what is added to the loss, and what is done to the optimiser. What ``requires_grad=False`` was set for
stays untrained in all of them; a head is always trained, and nothing holds it back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch.nn.utils import parametrize

from shared.data.constraints import Flag, NotNegative, OneOf, Positive, Probability, Whole, check, require
from shared.data.errors import DataError
from shared.methods.guided_transfer.guide import Guide, digest_of
from shared.methods.guided_transfer.scouts import trained
from shared.methods.guided_transfer.steps import MODES, GuidedSteps


@dataclass
class Plan:
    """What a strategy does while a network is trained.

    Attributes
    ----------
    penalty : callable, optional
        Of no argument, gives the scalar that is added to the loss of each batch.
    on_optimizer : callable, optional
        See :func:`shared.train.fit`.
    evaluates : bool
        The encoder is in evaluation mode while its head is trained.
    """

    penalty: Callable[[], torch.Tensor] | None = None
    on_optimizer: Callable | None = None
    evaluates: bool = False


@dataclass(frozen=True, eq=False)
class Full:
    """Train all weights: ordinary fine-tuning. The other strategies extend it.

    Attributes
    ----------
    tunes, values : str, tuple
        The setting that is tuned beside the learning rate, if any, and the values to try: see :func:`candidates`.
    """

    constraints: ClassVar[dict] = {}
    tunes: ClassVar[str] = ""
    values: ClassVar[tuple] = ()

    def __post_init__(self):
        check(vars(self), self.constraints)

    def __call__(self, net: torch.nn.Module, encoder: torch.nn.Module) -> Plan:
        """Change in `net` what is trained, and say what else is to be done."""
        return Plan()

    def about(self) -> dict:
        """Tells it from another strategy, and from itself with other settings, for a checkpoint."""
        told = {k: digest_of(v) if isinstance(v, Mapping) else v for k, v in vars(self).items()}
        return {"strategy": type(self).__name__} | told


class Frozen(Full):
    """Train the head only; dropout and running statistics of the encoder rest too."""

    def __call__(self, net, encoder):
        encoder.requires_grad_(False)
        return Plan(evaluates=True)


class BitFit(Full):
    """Train the biases of the encoder only (Ben Zaken et al. 2022)."""

    def __call__(self, net, encoder):
        biases = [name for name in trained(encoder) if name.rpartition(".")[2] == "bias"]
        if not biases:
            raise DataError("the encoder has no bias to train: use another strategy, such as LoRA()")
        for name, p in encoder.named_parameters():
            p.requires_grad_(name in biases)
        return Plan()


@dataclass(frozen=True, eq=False)
class L2SP(Full):
    """Pull the encoder's weights towards the pre-trained ones: adds strength / 2 · Σ (w - w₀)² (Li et al. 2018).

    The paper's second term, a decay of the head, is left to ``weight_decay``.
    """

    constraints, tunes, values = {"strength": NotNegative()}, "strength", (1e-3, 1e-2, 1e-1, 1.0)

    strength: float = 0.1

    def __call__(self, net, encoder):
        return Plan(pulls(encoder, self.strength))


@dataclass(frozen=True, eq=False)
class EWC(Full):
    """As L2-SP, each weight by its Fisher information (Kirkpatrick et al. 2017): strength / 2 · Σ F (w - w₀)².

    Parameters
    ----------
    fisher : mapping of str to tensor
        Of :func:`diagonal_fisher`, by the encoder's names; a weight without one is not held.
    strength : float
        Of the penalty, with the Fisher information divided by its mean over all weights, so that one list of strengths
        suits L2-SP and EWC.
    """

    constraints, tunes, values = {"strength": NotNegative()}, "strength", (1e-3, 1e-2, 1e-1, 1.0)

    fisher: Mapping[str, torch.Tensor] = field(repr=False)
    strength: float = 0.1

    def __call__(self, net, encoder):
        weights = {name: self.fisher[name] for name in trained(encoder) if name in self.fisher}
        mean = sum(float(f.sum()) for f in weights.values()) / max(1, sum(f.numel() for f in weights.values()))
        wrong = [name for name, p in encoder.named_parameters() if name in weights and weights[name].shape != p.shape]
        if not mean > 0 or wrong:
            what = f"is of another shape for {wrong[0]}" if wrong else "says nothing of the weights that are trained"
            raise DataError(f"fisher {what}: pass diagonal_fisher of this encoder")
        return Plan(pulls(encoder, self.strength, {name: f / mean for name, f in weights.items()}))


@dataclass(frozen=True, eq=False)
class LoRA(Full):
    """Train a product of two thin matrices beside each linear layer of the encoder, nothing else (Hu et al. 2022).

    The layer's weight is W + (alpha / rank) B A. At first B is zero, and A is drawn as torch draws a linear layer,
    evenly between ±1 / √inputs. Biases and layers of other kinds stay as they are.

    Parameters
    ----------
    rank : int
        Lowered to the smaller side of a layer.
    alpha : float
    """

    constraints = {"rank": Whole(1), "alpha": Positive()}
    tunes, values = "rank", (1, 2, 4, 8)

    rank: int = 4
    alpha: float = 8.0

    def __call__(self, net, encoder):
        layers = [m for m in encoder.modules() if isinstance(m, torch.nn.Linear) and m.weight.requires_grad]
        if not layers:
            raise DataError("the encoder has no torch.nn.Linear to train: use another strategy, such as L2SP()")
        encoder.requires_grad_(False)
        for layer in layers:
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, self.rank, self.alpha))
        return Plan()


class LowRank(torch.nn.Module):
    """A weight plus a product of two thin matrices, which alone are trained."""

    def __init__(self, weight, rank, alpha):
        super().__init__()
        rank = min(rank, *weight.shape)
        self.A = torch.nn.Parameter(torch.empty(rank, weight.shape[1], device=weight.device))
        torch.nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.B = torch.nn.Parameter(torch.zeros(weight.shape[0], rank, device=weight.device))
        self.scale = alpha / rank

    def forward(self, weight):
        """The weight that the layer uses."""
        return weight + self.scale * self.B @ self.A


@dataclass(frozen=True, eq=False)
class Guided(Full):
    """Train all weights, each as far as a guide lets it.

    Parameters
    ----------
    guide : Guide
        By the names of the network.
    mode, keep_norm
        See :class:`shared.methods.guided_transfer.steps.GuidedSteps`.
    floor : float
        The least that a weight gets: g becomes floor + (1 - floor) g; 1 is full fine-tuning.
    """

    constraints = {"mode": OneOf(*MODES), "keep_norm": Flag(), "floor": Probability()}
    tunes, values = "floor", (0.0, 0.01, 0.1, 0.5)

    guide: Guide = field(repr=False)
    mode: str = "update"
    keep_norm: bool = False
    floor: float = 0.0

    def __call__(self, net, encoder):
        guide = {name: self.floor + (1 - self.floor) * g for name, g in self.guide.items()}
        return Plan(on_optimizer=partial(GuidedSteps, Guide(guide), mode=self.mode, keep_norm=self.keep_norm))


def pulls(encoder, strength: float, weights: Mapping[str, torch.Tensor] | None = None) -> Callable[[], torch.Tensor]:
    """Half of `strength` times the sum of squared distances from the weights of now, weighed by `weights` if given."""
    named = {k: p for k, p in encoder.named_parameters() if p.requires_grad and (weights is None or k in weights)}
    kept = {name: (p.detach().clone(), 1 if weights is None else weights[name]) for name, p in named.items()}

    def penalty():
        for name, p in named.items():  # once, when the network has been moved to its device
            if kept[name][0].device != p.device:
                kept[name] = tuple(torch.as_tensor(part).to(p.device) for part in kept[name])
        return strength / 2 * sum((kept[k][1] * (p - kept[k][0]).square()).sum() for k, p in named.items())

    return penalty


def candidates(strategy: Full, budget: int = 12, lr=(1e-4, 1e-1)) -> list[tuple[Full, float]]:
    """Settings to try: `budget` pairs of a strategy and a learning rate, as many for each kind of strategy.

    A strategy with a setting of its own gets its values times learning rates, one without gets more learning rates;
    these are evenly spaced in the logarithm from the first to the last of `lr`.

    Raises
    ------
    shared.data.constraints.SettingError
        If the values of a setting do not divide the budget.
    """
    own = [replace(strategy, **{strategy.tunes: value}) for value in strategy.values] or [strategy]
    divides = OneOf(*range(len(own), budget + 1, len(own)))
    require(divides, budget=budget)
    return [(one, float(rate)) for one in own for rate in np.geomspace(*lr, budget // len(own))]
