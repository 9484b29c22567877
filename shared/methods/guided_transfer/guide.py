"""The guide: for each weight a number from 0 to 1 that says how far it may move."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from shared.data.cells import digest
from shared.data.constraints import Constraint, OneOf, Probability, require
from shared.data.errors import DataError
from shared.train import read_safetensors, replace_file

NORMALISE = "minmax", "max", "rank"
# By the names of the library of the method's authors, from g in [0, 1]; :func:`at_temperature` divides by the largest.
TEMPERATURES = {
    "freezing": lambda g: (g >= g.flatten().kthvalue(math.ceil(0.99 * (g.numel() - 1)) + 1)[0]).to(g.dtype),
    "icy": lambda g: (2 * g - 1).clamp(min=0),
    "chilly": lambda g: g - g.min(),
    "room": lambda g: g,
    "warm": lambda g: 0.5 * g + 0.5,
    "evaporating": lambda g: 0.25 * g + 1,
}


def zero_to_one(change: torch.Tensor, how: str = "minmax") -> torch.Tensor:
    """The changes of one tensor, which are not all alike, from 0 to 1, the largest 1.

    ``"minmax"``: less the smallest, over what is then the largest; the least-changed weight gets 0 and stays as it is.
    ``"max"``: over the largest. ``"rank"``: the rank over the number of weights, ties at their mean, which no weight
    that changed far more than the others can push to 0.
    """
    low, high = change.min(), change.max()
    if how == "minmax":
        return (change - low) / (high - low)
    if how == "max":
        return change / high
    _, place, count = change.flatten().unique(return_inverse=True, return_counts=True)
    above = count.cumsum(0).to(torch.float64)  # the highest rank of each value
    rank = (above - (count - 1) / 2)[place]
    return (rank / rank.max()).to(change.dtype).view_as(change)


def at_temperature(g: torch.Tensor, temperature: str | float) -> torch.Tensor:
    """A guide at a temperature, the largest of each tensor 1; a number t is the least: t + (1 - t) g."""
    if not isinstance(temperature, str):
        return temperature + (1 - temperature) * g
    g = TEMPERATURES[temperature](g)
    return g / g.max()


class Guide(Mapping):
    """How far each weight may move: numbers in [0, 1] by the name of the tensor; a weight of 0 stays as it is.

    Parameters
    ----------
    values : mapping of str to float tensor
        By the names of a network's parameters. Parameters without a name here are trained without a guide.
    """

    def __init__(self, values: Mapping[str, torch.Tensor]):
        self._values = {name: torch.as_tensor(g, dtype=torch.float32).cpu() for name, g in values.items()}
        for name, g in self._values.items():
            if not g.numel() or not bool(((g >= 0) & (g <= 1)).all()):
                raise DataError(f"values of {name} are none, or not in [0, 1]: Guide.of(scouts) brings changes there")

    @classmethod
    def of(cls, scouts, normalise: str = "minmax", temperature: str | float = "room", flat: float = 1.0) -> Guide:
        """The guide of some scouts.

        Parameters
        ----------
        scouts : shared.methods.guided_transfer.Scouts
            One or more.
        normalise : {"minmax", "max", "rank"}
            Each tensor by itself: see :func:`zero_to_one`. The paper says only that values are normalised; its code
            takes ``"minmax"``. Squares have a long tail, so that most weights get numbers close to 0: compare arms at
            one size of update (``keep_norm``), not at one learning rate.
        temperature : str, or number from 0 to 1
            What is made of the numbers g of a tensor: as they are (``"room"``, as in the paper's code), less the
            smallest (``"chilly"``), 2g - 1 where above 0 (``"icy"``), 1 for the highest hundredth and 0 for the others
            (``"freezing"``), (1 + g) / 2 (``"warm"``), 1 + g / 4 (``"evaporating"``); then over the largest, which in
            the library is 1.25 for the last: a higher learning rate. A number is the least that a weight gets; 1 is no
            guide.
        flat : float
            What a tensor gets whose weights all changed alike, as a bias of one number always does: there is nothing to
            tell apart. In the paper's code it is 0, and the tensor is not trained.
        """
        require(OneOf(*NORMALISE), normalise=normalise)
        by_name = OneOf(*TEMPERATURES)
        number = Constraint(Probability().accepts, f"{by_name.said}, or a number from 0 to 1")
        require(by_name if isinstance(temperature, str) else number, temperature=temperature)
        require(Probability(), flat=flat)
        if not scouts.n:
            raise DataError("no scout was added, so there is nothing to guide by: add one to scouts first")

        def values(change):
            if change.min() == change.max():
                return torch.full_like(change, flat)
            return at_temperature(zero_to_one(change, normalise), temperature)

        return cls({name: values(change) for name, change in scouts.mean.items()})

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def mean(self) -> float:
        """The mean over all weights."""
        return sum(float(g.double().sum()) for g in self.values()) / sum(g.numel() for g in self.values())

    def shuffled(self, seed: int = 0) -> Guide:
        """The same numbers in another order within each tensor: the control for whether it matters which weight."""
        rng = torch.Generator().manual_seed(seed)
        return Guide({k: g.flatten()[torch.randperm(g.numel(), generator=rng)].view_as(g) for k, g in self.items()})

    def uniform(self, over: str = "tensor") -> Guide:
        """The same mean for all weights of a tensor, or of the network: the latter is a lower learning rate."""
        require(OneOf("tensor", "network"), over=over)
        mean = self.mean()
        return Guide({k: torch.full_like(g, mean if over == "network" else float(g.mean())) for k, g in self.items()})

    def without(self, *names: str) -> Guide:
        """Less the tensors of these names, and of the modules of these names, such as the head."""
        left = {k: g for k, g in self.items() if not any(k == name or k.startswith(f"{name}.") for name in names)}
        if len(left) == len(self) or not left:
            said = ", ".join(map(repr, names))
            raise DataError(f"without({said}) leaves out {'none' if left else 'all'} of {', '.join(self)}: name others")
        return Guide(left)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, in one step; returns its path."""
        from safetensors.torch import save

        tensors = {name: g.contiguous() for name, g in self.items()}
        replace_file(path, save(tensors, {"about": json.dumps({"format": "guide"})}))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Guide:
        """Read a file that :meth:`save` wrote; another, or a damaged one, is refused."""
        tensors, about = read_safetensors(path)
        if about.get("format") != "guide":
            raise DataError(f"{path} holds no guide: give the path of a file that Guide.save wrote")
        return cls(tensors)


def digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """Tells named tensors, such as those of a guide, from others."""
    return digest([sorted(tensors), *(tensors[name].cpu().numpy() for name in sorted(tensors))])
