"""A pretended accelerator: everything is computed on the CPU, and a mixture of devices is an error, as on a real one.

Inside :func:`elsewhere` a tensor that is made on ``cuda:0``, moved there, or computed from one that is there, says
that it is there. An operation that mixes it with a CPU tensor of one dimension or more raises, and so does NumPy when
it is given one.
"""

import contextlib
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PLACE = torch.device("cuda", 0)
aten = torch.ops.aten


class MixedDevicesError(RuntimeError):
    """Tensors of two devices met."""


def tensors(*things):
    return [x for x in tree_leaves(things) if isinstance(x, torch.Tensor)]


def storage(x):
    """Where the numbers of a tensor lie, also of one that ``torch.func`` has wrapped."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x.untyped_storage()


class Tags:
    """Which storages are there. Each is kept alive, or another would get its address and pass for it."""

    def __init__(self):
        self.kept = {}

    def there(self, x) -> bool:
        return storage(x)._cdata in self.kept

    def put(self, x, there: bool):
        one = storage(x)
        if there:
            self.kept[one._cdata] = one
        else:
            self.kept.pop(one._cdata, None)


class _Operations(TorchDispatchMode):
    """Below autograd: refuse mixtures, and pass the place on to what is computed."""

    def __init__(self, tags):
        super().__init__()
        self.tags = tags

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tensors(args, kwargs)
        there = [x for x in given if self.tags.there(x)]
        if there and func not in (aten.copy_.default, aten._to_copy.default):
            # A number without dimensions may come from the CPU, and so may row numbers of a tensor that is there.
            free = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and self.tags.there(args[0])
            asked = tensors(args[0], args[2:]) if free else given
            here = [tuple(x.shape) for x in asked if x.dim() and not self.tags.there(x)]
            if here:
                raise MixedDevicesError(f"{func} of a tensor on {PLACE} and one of {here[0]} on the CPU")
        out = func(*args, **kwargs)
        old = {storage(x)._cdata for x in given}
        for x in tensors(out):
            if storage(x)._cdata not in old:
                self.tags.put(x, bool(there))
        return out


@contextlib.contextmanager
def elsewhere():
    """The pretended accelerator; gives the :class:`Tags`. Not to be entered where there is a real one."""
    tags, backward = Tags(), torch.autograd._engine_run_backward
    functions = _Functions(tags)

    def seeing(*args, **kwargs):
        # Torch leaves a mode for the time of what it was asked for. Gradients written in Python must see the places.
        with functions:
            return backward(*args, **kwargs)

    with _Operations(tags), functions, mock.patch.object(torch.autograd, "_engine_run_backward", seeing):
        yield tags


class _Functions(TorchFunctionMode):
    """Above autograd: what a caller sees of a place, and where tensors are made and moved."""

    def __init__(self, tags):
        super().__init__()
        self.tags = tags

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        x = args[0] if args and isinstance(args[0], torch.Tensor) else None
        there = x is not None and self.tags.there(x)
        if func == torch.Tensor.device.__get__:
            return PLACE if there else func(*args)
        if func in (torch.Tensor.is_cuda.__get__, torch.Tensor.is_cpu.__get__):
            return there == (func == torch.Tensor.is_cuda.__get__)
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and there:
            raise TypeError(f"can't convert {PLACE} device type tensor to numpy. Use Tensor.cpu() to copy it first.")
        if func is torch.Tensor.__deepcopy__ and there:
            out = func(*args, **kwargs)
            self.tags.put(out, True)
            return out
        if func in (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda):
            return self._to(func, x, there, args[1:], kwargs)
        goes = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type == "cuda"
        if goes is not None:
            kwargs["device"] = "cpu"
        out = func(*args, **kwargs)
        for made in tensors(out) if goes is not None else ():
            self.tags.put(made, goes)
        return out

    def _to(self, func, x, there, args, kwargs):
        """Move a tensor, or change its type; where neither changes it stays itself, as torch has it."""
        goes, wanted = there, [*args, kwargs.get("dtype")]
        if func is not torch.Tensor.to:
            goes, wanted = func is torch.Tensor.cuda, []
        elif args and isinstance(args[0], torch.Tensor):
            goes, wanted = self.tags.there(args[0]), [args[0].dtype]
        else:
            named = [a for a in (*args, kwargs.get("device")) if isinstance(a, (str, torch.device))]
            goes = torch.device(named[0]).type == "cuda" if named else there
        dtype = next((a for a in wanted if isinstance(a, torch.dtype)), x.dtype)
        out = x.to(dtype)
        if goes == there:
            return out
        out = out.clone() if dtype == x.dtype else out
        self.tags.put(out, goes)
        return out
