"""A pickled dict of word to torch tensor, read without torch and without running anything that the file asks for.

This reader (Python's own: the one in C makes room for all that a file says it keeps) knows the instructions that a dict
of tensors needs, and three functions.
"""

import io
import math
import pickle

import numpy as np

from shared.data.errors import DataError

MOST = 1 << 25  # bytes of a file; the one table of the catalogue has 24 MB
TYPES = {"torch.FloatStorage": "<f4", "torch.DoubleStorage": "<f8", "torch.HalfStorage": "<f2"}
# What stands before each block of numbers in torch's old format: a magic number, a version, and what the numbers are.
HEAD = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, "storage", "cpu", None]
# PROTO, FRAME, MARK, STOP; words, bytes, numbers, truth values; memo; tuples, lists, dicts; GLOBAL, REDUCE, BINPERSID.
KNOWN = b"\x80\x95(.\x8cXBCJKM\x8aN\x88\x89\x94qrhj)t\x85\x86\x87]ae}suc\x93RQ"


def due(kept, words="it has an instruction that no dict of tensors needs"):
    """Refuse the file in those words unless `kept` is True."""
    if kept is not True:
        raise pickle.UnpicklingError(words)


class Words(dict):
    """A dict of words: any other key could be slow to hash, on purpose."""

    def __setitem__(self, key, value):
        due(type(key) is str and key not in self and key.encode() != b"", "a key is no word, or stands twice")
        super().__setitem__(key, value)


class Reader(pickle._Unpickler):
    """One pickle, which may ask for what `known` holds by name and for nothing else; nothing is imported."""

    dispatch = dict.fromkeys(range(256), due) | {code: pickle._Unpickler.dispatch[code] for code in KNOWN}
    dispatch[ord("}")] = lambda self: self.append(Words())
    persistent_load = tuple  # what a file says of a block of numbers, as it stands

    def __init__(self, file, known):
        super().__init__(file)
        self.known = known

    def find_class(self, module, name):
        due(f"{module}.{name}" in self.known, f"it asks for {module[:80]}.{name[:80]}")
        return self.known[f"{module}.{name}"]


def storage(content: bytes) -> np.ndarray:
    """The numbers of one tensor, out of a file of torch's old format."""
    file = io.BytesIO(content)
    magic, version, system, (kind, dtype, key, place, n, view), keys = (Reader(file, TYPES).load() for _ in HEAD[:5])
    system = {k: v for k, v in system.items() if k == "little_endian"}
    plain = type(key) is str and [magic, version, system, kind, place, view, keys] == [*HEAD, [key]]
    due(plain, "numbers are not described as in torch's old format")
    numbers = memoryview(content)[file.tell() :]
    whole = len(numbers) == 8 + n * np.dtype(dtype).itemsize and numbers[:8] == n.to_bytes(8, "little")
    due(whole, "a tensor and its numbers do not belong together")
    return np.frombuffer(numbers[8:], dtype)


def tensor(values, offset, size, stride, gradient, hooks) -> np.ndarray:
    """Some of the numbers of a storage, in their shape."""
    due(len(size) <= 8 and all(type(n) is int and n >= 0 for n in (offset, *size)), "a tensor's shape is none")
    due(stride == tuple(math.prod(size[i + 1 :]) for i in range(len(size))), "its numbers do not lie in a row")
    return values[offset : offset + math.prod(size)].reshape(size)


def read_tensors(path) -> dict[str, np.ndarray]:
    """The tensors of a pickled dict by name, in the file's order, dtype and shape as stored, read-only.

    :class:`DataError` if the file is damaged, holds anything else, or asks for any other function or class.
    """
    size = path.stat().st_size
    if size > MOST:
        raise DataError(f"{path.name} has {size:,} bytes; a table of tensors has at most {MOST:,}: is it another one?")
    known = {"torch.storage._load_from_bytes": storage, "torch._utils._rebuild_tensor_v2": tensor}
    try:
        found = Reader(io.BytesIO(path.read_bytes()), known | {"collections.OrderedDict": lambda: Words()}).load()
        due(type(found) is Words and {*map(type, found.values())} == {np.ndarray}, "it holds something else")
        due(sum(v.nbytes for v in found.values()) <= size, "its tensors together are larger than the file")
    except Exception as e:  # a cut or changed file makes the reader fail in many ways
        why = str(e)[:200] or type(e).__name__
        raise DataError(f"{path.name} is damaged, or no dict of tensors ({why}): fetch it again") from e
    return dict(found)
