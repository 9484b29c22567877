"""A pickled dict of word to torch tensor, read without torch and without running anything that the file asks for."""

import io
import math
import pickle

import numpy as np

from shared.data.errors import DataError

MOST = 1 << 25  # bytes of a file; the one table of the catalogue has 24 MB
HEAD = [0x1950A86A20F9469CFC6C, 1001, True, "storage", "cpu", None]  # how numbers begin in torch's old format
# PROTO, FRAME, MARK, STOP; words, bytes, numbers, truth values; memo; tuples, lists, dicts; GLOBAL, REDUCE, BINPERSID.
KNOWN = b"\x80\x95(.\x8cXBCJKM\x8aN\x88\x89\x94qrhj)t\x85\x86\x87]ae}suc\x93RQ"


class Words(dict):
    def __setitem__(self, key, value):
        if type(key) is not str or key in self or not key.encode():  # others could be slow to hash, on purpose
            raise ValueError("a key is no word, or stands twice")
        super().__setitem__(key, value)


class Reader(pickle._Unpickler):  # the one in C makes room for all that a file says it keeps
    dispatch = {code: pickle._Unpickler.dispatch[code] for code in KNOWN}
    dispatch[ord("}")] = lambda self: self.append(Words())
    persistent_load = tuple  # what a file says of a block of numbers, as it stands
    known = {"torch.FloatStorage": "<f4", "torch.DoubleStorage": "<f8", "torch.HalfStorage": "<f2"}

    def find_class(self, module, name):
        return self.known[f"{module}.{name}"]


def tensor(content, offset, size, stride, gradient, hooks) -> np.ndarray:
    """Some of the numbers of a file of torch's old format, in their shape."""
    file = io.BytesIO(content)
    magic, version, system, (kind, dtype, key, place, n, view), keys = (Reader(file).load() for _ in range(5))
    fits = type(key) is str and [magic, version, system.get("little_endian"), kind, place, view, keys] == [*HEAD, [key]]
    whole = file.read(8) == n.to_bytes(8, "little")
    values = np.frombuffer(content, dtype, offset=file.tell())
    plain = len(values) == n and len(size) <= 8 and all(type(k) is int and k >= 0 for k in (offset, *size))
    if not (fits and whole and plain and stride == tuple(math.prod(size[i + 1 :]) for i in range(len(size)))):
        raise ValueError("a tensor is not described as in torch's old format, or its numbers do not lie in a row")
    return values[offset : offset + math.prod(size)].reshape(size)


def read_tensors(path) -> dict[str, np.ndarray]:
    """The tensors of a dict by name, dtype and shape as stored, read-only; :class:`DataError` for any other file."""
    try:
        if (size := path.stat().st_size) > MOST:
            raise ValueError(f"it has {size:,} bytes, and such a table at most {MOST:,}")
        reader = Reader(io.BytesIO(path.read_bytes()))
        reader.known = {"torch.storage._load_from_bytes": lambda b: b, "torch._utils._rebuild_tensor_v2": tensor}
        reader.known["collections.OrderedDict"] = lambda: Words()
        found = reader.load()
        if {*map(type, found.values())} != {np.ndarray} or sum(v.nbytes for v in found.values()) > size:
            raise ValueError("it holds something else, or more numbers than bytes")
    except Exception as e:  # a cut or changed file makes the reader fail in many ways
        raise DataError(f"{path.name} is damaged, or more than a dict of tensors ({e!r:.200}): fetch it again") from e
    return dict(found)
