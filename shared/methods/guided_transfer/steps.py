"""The guide at work: hooks of torch on the step of any optimiser."""

from __future__ import annotations

import inspect

import torch

from shared.data.constraints import Flag, OneOf, require
from shared.data.errors import DataError
from shared.methods.guided_transfer.guide import Guide

MODES = "update", "gradient", "lr"
TINY = 1e-30  # a norm by which one can divide


class GuidedSteps:
    """A guide at work in an optimiser: hooks before and after its step, and in its ``state_dict``.

    Parameters
    ----------
    guide : Guide
    optimizer : torch.optim.Optimizer
        Any, schedulers and all. Its ``state_dict`` holds the guide too from now on, and loading one puts it back; one
        without a guide is refused.
    net : torch.nn.Module
        Whose parameters it trains.
    mode : {"update", "gradient", "lr"}
        What the guide multiplies. ``"update"``: the change of each weight that the optimiser makes, whatever it is, as
        the paper tells it. ``"gradient"``: the gradient that the optimiser reads, as in the paper's code and library.
        With SGD that is the same. Adam divides the gradient by its own size: a weight's factor m falls out of its
        update but for where the gradient is so small that ``m * |g|`` is near ``eps``. ``"lr"``: the learning rate of
        each weight; as ``"update"``, except that AdamW's decay, which no gradient asks for, is left whole.
    keep_norm : bool
        Scale what the guide made to the norm, over all guided weights, that it had without: then a guide decides where
        updates go, and not how large they are.

    Raises
    ------
    shared.data.constraints.SettingError
        If `mode` or `keep_norm` cannot be used.
    shared.data.errors.DataError
        If no tensor of the guide is trained, or one has another shape than the parameter of its name.
    """

    def __init__(self, guide: Guide, optimizer, net, mode: str = "update", keep_norm: bool = False):
        require(OneOf(*MODES), mode=mode)
        require(Flag(), keep_norm=keep_norm)
        places = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
        self.mode, self.keep_norm, self.guided = mode, keep_norm, []
        for name, p in net.named_parameters():
            if name not in guide or id(p) not in places or not p.requires_grad:
                continue
            if p.shape != guide[name].shape:
                said = f"the guide of {name} has shape {tuple(guide[name].shape)} and the parameter {tuple(p.shape)}"
                raise DataError(f"{said}: leave it out, guide.without({name!r})")
            self.guided.append((name, p, guide[name].to(p.device, p.dtype), places[id(p)]))
        if not self.guided:
            raise DataError(f"the guide names {[*guide][:3]}, of which the optimiser trains none: scout this network")
        hooks = {"step_pre": self._before, "step_post": self._after}
        hooks |= {"state_dict_post": self._state, "load_state_dict_pre": self._load}
        # What torch wraps some of these methods in imports its compiler: two seconds, for nothing.
        register = {name: inspect.unwrap(getattr(type(optimizer), f"register_{name}_hook")) for name in hooks}
        self.hooks = [register[name](optimizer, hook) for name, hook in hooks.items()]

    def remove(self) -> None:
        """The optimiser is as it was before."""
        for hook in self.hooks:
            hook.remove()

    @torch.no_grad()
    def _before(self, optimizer, args, kwargs):
        if self.mode != "gradient":
            self.before = [p.clone() for _, p, _, _ in self.guided]
            return
        found = [(p.grad, g) for _, p, g, _ in self.guided if p.grad is not None]
        size = norm(grad for grad, _ in found)
        for grad, g in found:
            grad.mul_(g)
        if self.keep_norm:
            factor = size / norm(grad for grad, _ in found).clamp(min=TINY)
            for grad, _ in found:
                grad.mul_(factor)

    @torch.no_grad()
    def _after(self, optimizer, args, kwargs):
        if self.mode == "gradient":
            return
        size, moved = norm(p - old for (_, p, _, _), old in zip(self.guided, self.before, strict=True)), []
        for (_, p, g, place), old in zip(self.guided, self.before, strict=True):
            start = old * kept_by_decay(optimizer, place) if self.mode == "lr" else old
            # lerp gives the very numbers of the optimiser where the guide is 1, and the old ones where it is 0.
            p.copy_(start.lerp(p, g))
            moved.append(p - old)
        if self.keep_norm:
            factor = size / norm(moved).clamp(min=TINY)
            for (_, p, _, _), old, way in zip(self.guided, self.before, moved, strict=True):
                p.copy_(old + factor * way)
        self.before = None

    def _state(self, optimizer, state):
        values = {name: g for name, _, g, _ in self.guided}
        return state | {"guide": {"mode": self.mode, "keep_norm": self.keep_norm, "values": values}}

    def _load(self, optimizer, state):
        kept = state.get("guide")
        if kept is None or kept["values"].keys() != {name for name, _, _, _ in self.guided}:
            said = "holds no guide" if kept is None else "holds the guide of other tensors"
            raise DataError(f"the state {said}: load into an optimiser as it was saved, or call remove() first")
        self.mode, self.keep_norm = kept["mode"], kept["keep_norm"]
        self.guided = [(name, p, kept["values"][name].to(p), place) for name, p, _, place in self.guided]


def kept_by_decay(optimizer, place: int) -> float:
    """What decoupled weight decay, which is no part of Adam's update, leaves of a weight in one step."""
    group = optimizer.param_groups[place]
    decoupled = isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay")
    return 1 - group["lr"] * group["weight_decay"] if decoupled else 1.0


def norm(tensors) -> torch.Tensor:
    """Of several tensors as of one vector."""
    return torch.stack([torch.zeros(()), *(t.norm().cpu() for t in tensors)]).norm()
