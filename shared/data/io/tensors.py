"""A pickled dict of word to torch tensor, read without unpickling anything.

A pickle is a small program, and the usual reader runs it: whoever writes one can run any code here. This module runs no
such reader. It walks through the program's instructions itself and knows only those that a dict of tensors needs; every
other instruction, and every function but the three that rebuild a tensor, is refused. A small file cannot unfold into a
large table either: instructions and bytes are counted, and each number serves one tensor once.
"""

from __future__ import annotations

import io
import math
import pickletools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.data.errors import DataError

LARGEST = 1 << 28  # bytes of a file; the one table of the catalogue has 24 MB
MOST_STEPS = 1_000_000  # that table takes 81,272
DTYPES = {
    "torch FloatStorage": "<f4",
    "torch DoubleStorage": "<f8",
    "torch HalfStorage": "<f2",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ShortStorage": "<i2",
    "torch CharStorage": "<i1",
    "torch ByteStorage": "<u1",
    "torch BoolStorage": "?",
}
REBUILD, FROM_BYTES, ORDERED = (
    "torch._utils _rebuild_tensor_v2",
    "torch.storage _load_from_bytes",
    "collections OrderedDict",
)
# What torch writes before each block of numbers: a magic number and the version of its old file format.
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a pickled dict by name.

    Parameters
    ----------
    path : Path
        A file that ``pickle.dump`` made of a dict of str to CPU tensor.

    Returns
    -------
    dict of str to ndarray
        In the file's order; dtype and shape as stored; read-only.

    Raises
    ------
    DataError
        If the file is damaged, holds anything but such a dict, or asks for any other function or class.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > LARGEST:
        raise DataError(
            f"{path.name} has {size:,} bytes; a table of tensors has at most {LARGEST:,}: is it another one?"
        )
    try:
        found = Walk(io.BytesIO(path.read_bytes()), {REBUILD, FROM_BYTES, ORDERED}, Budget(MOST_STEPS, size)).run()
        if not isinstance(found, dict) or not found:
            raise TensorError(f"it holds a {_kind(found)} where a dict of tensors is needed")
        wrong = next((k for k, v in found.items() if not isinstance(v, np.ndarray)), None)
        if wrong is not None:
            raise TensorError(f"{wrong[:80]!r} is a {_kind(found[wrong])}, not a tensor")
    except TensorError as e:
        raise DataError(f"{path.name} is refused: {e}; only tensors, words and dicts are read") from e
    # A cut or flipped file makes the walk fail in any of these ways.
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError) as e:
        raise DataError(f"{path.name} is damaged ({type(e).__name__}: {str(e)[:200]}): fetch it again") from e
    return found


class TensorError(Exception):
    """Why a file is no dict of tensors."""


@dataclass
class Budget:
    """What one file may still cost: instructions, and bytes looked at as tensors."""

    steps: int
    bytes: int


@dataclass(frozen=True)
class Name:
    """A function or class the file asks for; it stays a name, nothing is looked up or imported."""

    name: str


@dataclass(frozen=True)
class Stored:
    """What a storage's own pickle says of it."""

    dtype: str
    key: str
    n: int


@dataclass
class Storage:
    """Numbers in a row, and whether a tensor has taken them."""

    values: np.ndarray
    taken: bool = False


MARK = object()  # on the stack, where a tuple, list or dict begins


def _kind(value) -> str:
    return value.name if isinstance(value, Name) else type(value).__name__


@dataclass
class Walk:
    """One pickle in `file`, from where the file stands to its STOP; it may ask for the names in `known`."""

    file: io.BytesIO
    known: set[str]
    budget: Budget
    stack: list = field(default_factory=list)
    memo: dict = field(default_factory=dict)

    def run(self):
        """The one value that the instructions leave."""
        for op, value, _ in pickletools.genops(self.file):
            self.budget.steps -= 1
            if self.budget.steps < 0:
                raise TensorError("it has far more instructions than a table of tensors needs")
            if op.name == "STOP":
                (result,) = self.stack
                return result
            if op.name not in STEPS:
                raise TensorError(f"it uses the instruction {op.name}, which no dict of tensors needs")
            STEPS[op.name](self, value)
        raise ValueError("it ends early")

    def push(self, value):
        self.stack.append(value)

    def pop(self, n):
        """The last `n` values, as a tuple."""
        if n > len(self.stack):
            raise ValueError("a value is missing")
        values = tuple(self.stack[len(self.stack) - n :])
        del self.stack[len(self.stack) - n :]
        return values

    def group(self):
        """What lies above the last mark."""
        at = next(i for i in range(len(self.stack) - 1, -2, -1) if i < 0 or self.stack[i] is MARK)
        if at < 0:
            raise ValueError("a group has no beginning")
        values = self.pop(len(self.stack) - at - 1)
        self.stack.pop()
        return values

    def keep(self, at):
        self.memo[len(self.memo) if at is None else at] = self.stack[-1]

    def name(self, value):
        if value is None:  # both words lie on the stack
            words = self.pop(2)
            if not all(isinstance(word, str) for word in words):
                raise TensorError("it asks for a function by something that is no name")
            value = " ".join(words)
        if value not in self.known:
            raise TensorError(f"it asks for {value[:80].replace(' ', '.')}")
        self.push(Name(value))

    def fill(self, pairs):
        into = self.stack[-1]
        if type(into) is not dict:
            raise TensorError(f"it fills a {_kind(into)} as if it were a dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str):  # another key could be slow to hash, on purpose
                raise TensorError(f"a dict has a {_kind(key)} for a key")
            key.encode()  # half a character is a name for pickle, but for nobody else
            if key in into:
                raise TensorError(f"it names {key[:80]!r} twice")
            into[key] = value

    def extend(self, values):
        if type(self.stack[-1]) is not list:
            raise TensorError(f"it fills a {_kind(self.stack[-1])} as if it were a list")
        self.stack[-1].extend(values)

    def call(self, _):
        """Do what the three functions of a pickled tensor do; the functions themselves are never touched."""
        function, given = self.pop(2)
        ours = {REBUILD: _tensor, FROM_BYTES: self.storage, ORDERED: dict} if isinstance(function, Name) else {}
        if _kind(function) not in ours or not isinstance(given, tuple):
            raise TensorError(f"it calls a {_kind(function)}")
        if function.name == ORDERED and given:
            raise TensorError("it fills an OrderedDict, which a tensor leaves empty")
        self.push(ours[function.name](*given))

    def persistent(self, _):
        """The description of a storage."""
        kind, name, key, place, n, view = self.pop(1)[0]
        right = kind == "storage" and _kind(name) in DTYPES and isinstance(key, str) and place == "cpu" and view is None
        if not right or type(n) is not int:
            raise TensorError("a tensor's numbers are not described as torch describes them")
        self.push(Stored(DTYPES[name.name], key, n))

    def storage(self, content):
        """Numbers in the format torch wrote before it used zip files: five small pickles, then the bytes."""
        if not isinstance(content, bytes):
            raise TensorError("a tensor's numbers are no bytes")
        self.budget.bytes -= len(content)
        if self.budget.bytes < 0:
            raise TensorError("its tensors together are larger than the file")
        file = io.BytesIO(content)
        magic, version, system, found, keys = (Walk(file, set(DTYPES), self.budget).run() for _ in range(5))
        little = isinstance(system, dict) and system.get("little_endian") is True
        if magic != MAGIC or version != VERSION or not little:
            raise TensorError("a tensor is not in torch's old format")
        if not isinstance(found, Stored) or keys != [found.key]:
            raise ValueError("a tensor and its numbers do not belong together")
        numbers = memoryview(content)[file.tell() :]
        if len(numbers) != 8 + found.n * np.dtype(found.dtype).itemsize or numbers[:8] != found.n.to_bytes(8, "little"):
            raise ValueError(f"a tensor should have {found.n} numbers, but comes with {len(numbers) - 8} bytes")
        return Storage(np.frombuffer(numbers[8:], found.dtype))


def _tensor(storage, offset, size, stride, gradient, hooks):
    """The numbers of `storage` in the shape `size`."""
    if not isinstance(storage, Storage) or storage.taken:
        raise TensorError("a tensor shares its numbers with another one, or has none")
    whole = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) <= 8
    if not whole or not all(type(n) is int and 0 <= n < 2**48 for n in (offset, *size, *stride)):
        raise TensorError("a tensor's shape is not made of a few whole numbers")
    if stride != tuple(math.prod(size[i + 1 :]) for i in range(len(size))):
        raise TensorError("a tensor's numbers do not lie in a row")
    if offset + math.prod(size) > len(storage.values):
        raise ValueError(f"a tensor of shape {size} is larger than its {len(storage.values)} numbers")
    storage.taken = True
    return storage.values[offset : offset + math.prod(size)].reshape(size)


# The instructions that are known, by the names Python's own documentation of pickles gives them.
STEPS = {
    **dict.fromkeys(["PROTO", "FRAME"], lambda walk, value: None),
    **dict.fromkeys(["SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"], Walk.push),
    **dict.fromkeys(["BININT", "BININT1", "BININT2", "LONG1"], Walk.push),
    **dict.fromkeys(["MEMOIZE", "BINPUT", "LONG_BINPUT"], Walk.keep),
    **dict.fromkeys(["BINGET", "LONG_BINGET"], lambda walk, at: walk.push(walk.memo[at])),
    **dict.fromkeys(["GLOBAL", "STACK_GLOBAL"], Walk.name),
    "NONE": lambda walk, _: walk.push(None),
    "NEWTRUE": lambda walk, _: walk.push(True),
    "NEWFALSE": lambda walk, _: walk.push(False),
    "EMPTY_DICT": lambda walk, _: walk.push({}),
    "EMPTY_LIST": lambda walk, _: walk.push([]),
    "EMPTY_TUPLE": lambda walk, _: walk.push(()),
    "MARK": lambda walk, _: walk.push(MARK),
    "TUPLE": lambda walk, _: walk.push(walk.group()),
    "TUPLE1": lambda walk, _: walk.push(walk.pop(1)),
    "TUPLE2": lambda walk, _: walk.push(walk.pop(2)),
    "TUPLE3": lambda walk, _: walk.push(walk.pop(3)),
    "SETITEM": lambda walk, _: walk.fill(walk.pop(2)),
    "SETITEMS": lambda walk, _: walk.fill(walk.group()),
    "APPEND": lambda walk, _: walk.extend(walk.pop(1)),
    "APPENDS": lambda walk, _: walk.extend(walk.group()),
    "REDUCE": Walk.call,
    "BINPERSID": Walk.persistent,
}
