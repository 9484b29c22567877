"""The guide at work: hooks of torch on the step of any optimiser."""

from __future__ import annotations

import inspect

import torch

from shared.data.constraints import Flag, OneOf, require
from shared.data.errors import DataError
from shared.methods.guided_transfer.guide import Guide

MODES = "update", "gradient", "lr"
TINY = 1e-30  # a norm by which one can divide


@torch.no_grad()
def guide_gradients(parameters, guide) -> None:
    """The published code's rule, before the optimiser's step: each gradient times its number of the guide, in place."""
    for p, g in zip(parameters, guide, strict=True):
        if p.grad is not None:
            p.grad.mul_(g)


@torch.no_grad()
def guide_updates(parameters, guide, start) -> None:
    """The paper's rule, after the optimiser's step: of the way from `start`, the part that the guide says, in place.

    Where the guide is 1 stand the very numbers that the optimiser gave, and where it is 0 those of `start`.
    """
    for p, g, old in zip(parameters, guide, start, strict=True):
        p.copy_(old.lerp(p, g))


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
        the paper tells it. ``"gradient"``: the gradient that the optimiser reads, as in the paper's code, which trains
        with Adam, and in the library, whose examples use SGD. With SGD without weight decay both are the same. Adam
        divides the gradient by its own size: a weight's factor m falls out of its update but for where the gradient is
        so small that ``m * |g|`` is near ``eps``. ``"lr"``: the learning rate of each weight; as ``"update"``, except
        that AdamW's decay, which no gradient asks for, is left whole.
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
        groups = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
        guided = {k: p for k, p in net.named_parameters() if k in guide and id(p) in groups and p.requires_grad}
        if not guided:
            raise DataError(f"the guide names {[*guide][:3]}, of which the optimiser trains none: scout this network")
        for name, p in guided.items():
            if p.shape != guide[name].shape:
                said = f"the guide of {name} has shape {tuple(guide[name].shape)} and the parameter {tuple(p.shape)}"
                raise DataError(f"{said}: leave it out, guide.without({name!r})")
        self.mode, self.keep_norm, self.parameters = mode, keep_norm, [*guided.values()]
        self.guide = {name: guide[name].to(p.device, p.dtype) for name, p in guided.items()}
        self.groups = [groups[id(p)] for p in self.parameters]
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
            self.start = [p.clone() for p in self.parameters]
            return
        if kwargs.get("closure") or any(args[1:]):
            raise DataError("a closure makes gradients that no guide sees: set mode='update', or call step without")
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        size = norm(gradients) if self.keep_norm else None
        guide_gradients(self.parameters, self.guide.values())
        if self.keep_norm:
            factor = size / norm(gradients).clamp(min=TINY)
            for gradient in gradients:
                gradient.mul_(factor)

    @torch.no_grad()
    def _after(self, optimizer, args, kwargs):
        if self.mode == "gradient":
            return
        start = self.start
        size = norm([p - old for p, old in zip(self.parameters, start, strict=True)]) if self.keep_norm else None
        if self.mode == "lr":
            kept = [kept_by_decay(optimizer, optimizer.param_groups[i]) for i in self.groups]
            start = [old * share for old, share in zip(start, kept, strict=True)]
        guide_updates(self.parameters, self.guide.values(), start)
        if self.keep_norm:
            moved = [p - old for p, old in zip(self.parameters, self.start, strict=True)]
            factor = size / norm(moved).clamp(min=TINY)
            for p, old, way in zip(self.parameters, self.start, moved, strict=True):
                p.copy_(old + factor * way)
        self.start = None

    def _state(self, optimizer, state):
        return state | {"guide": {"mode": self.mode, "keep_norm": self.keep_norm, "values": self.guide}}

    def _load(self, optimizer, state):
        kept = state.get("guide")
        if kept is None or kept["values"].keys() != self.guide.keys():
            said = "holds no guide" if kept is None else "holds the guide of other tensors"
            raise DataError(f"the state {said}: load into an optimiser as it was saved, or call remove() first")
        self.mode, self.keep_norm = kept["mode"], kept["keep_norm"]
        self.guide = {name: kept["values"][name].to(g) for name, g in self.guide.items()}


def kept_by_decay(optimizer, group: dict) -> float:
    """What decoupled weight decay, which is no part of Adam's update, leaves of a weight in one step."""
    decoupled = isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay")
    return 1 - group["lr"] * group["weight_decay"] if decoupled else 1.0


def norm(tensors) -> torch.Tensor:
    """Of several tensors as of one vector."""
    return torch.stack([t.norm() for t in tensors] or [torch.zeros(())]).norm()
