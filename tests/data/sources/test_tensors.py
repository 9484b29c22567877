"""The reader of pickled tensors: what torch wrote comes back, and no other file does anything but be refused."""

import ast
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.data.errors import DataError
from shared.data.sources import tensors
from shared.data.sources.tensors import read_tensors

TWO = {"A": torch.arange(4.0), "B": torch.tensor([0.5, -1.0, 2.0, 3.0])}


def read(path, content):
    path.write_bytes(content)
    return read_tensors(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.pkl"


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    "dtype",
    ["float32", "float64", "float16"],
)
def test_what_torch_wrote_comes_back(path, protocol, dtype):
    dtype = getattr(torch, dtype)
    wrote = {"first": torch.arange(6).reshape(2, 3).to(dtype), "second": torch.ones(4, dtype=dtype)}
    wrote |= {"a part": torch.arange(10).to(dtype)[3:7], "none": torch.zeros(0, dtype=dtype)}
    wrote |= {"one": torch.tensor(1).to(dtype)}
    got = read(path, pickle.dumps(wrote, protocol=protocol))
    assert list(got) == list(wrote)
    for name, tensor in wrote.items():
        assert got[name].dtype == tensor.numpy().dtype and got[name].shape == tuple(tensor.shape)
        assert np.array_equal(got[name], tensor.numpy())


def test_many_lines_are_read_in_order(path):
    wrote = {f"line{i}": torch.full((50,), float(i)) for i in range(300)}
    got = read(path, pickle.dumps(wrote))
    assert list(got) == list(wrote) and np.stack(list(got.values())).mean(1).tolist() == list(range(300))


def test_the_reader_admits_its_own_functions_only():
    text = Path(tensors.__file__).read_text(encoding="utf-8")
    imported = {a.name for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import) for a in n.names}
    assert "torch" not in imported and "import_module" not in text
    assert "find_class" in vars(tensors.Reader) and {*tensors.Reader.dispatch} == {*tensors.KNOWN}


# Hostile files. Each would do something, or cost a lot, in the hands of the usual reader.


class Call:
    def __init__(self, function, *given):
        self.reduced = function, given

    def __reduce__(self):
        return self.reduced


def storage(inner=None, n=4, numbers=None, **changed):
    """The bytes of a storage of `n` numbers, with parts changed."""
    buffer = io.BytesIO()
    parts = {
        "magic": pickle.dumps(tensors.HEAD[0], 2),
        "version": pickle.dumps(1001, 2),
        "system": pickle.dumps({"little_endian": True}, 2),
        "stored": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + pickle.dumps(n, 2)[2:-1]
        + b"NtQ.",
        "keys": pickle.dumps(["0"], 2),
        "numbers": struct.pack("<q", n) + (np.arange(4, dtype="<f4").tobytes() if numbers is None else numbers),
    } | changed
    for part in parts.values():
        buffer.write(part)
    return buffer.getvalue()


def short(word):
    return b"\x8c" + bytes([len(word)]) + word.encode()


def blob(content):
    return b"B" + struct.pack("<I", len(content)) + content


def number(n):
    return pickle.dumps(n, 2)[2:-1]


FUNCTION = b"\x93"
TAKE = short("torch.storage") + short("_load_from_bytes") + FUNCTION
EMPTY = short("collections") + short("OrderedDict") + FUNCTION + b")R"


def tensor(content=None, offset=0, size=(4,), stride=(1,), got=None):
    """The instructions of one tensor; `got` are those that put the storage on the stack."""
    got = got or TAKE + blob(content or storage()) + b"\x85R"
    shape = b"".join(b"(" + b"".join(map(number, s)) + b"t" for s in (size, stride))
    start = short("torch._utils") + short("_rebuild_tensor_v2") + FUNCTION + b"("
    return start + got + number(offset) + shape + b"\x89" + EMPTY + b"tR"


def table(*values):
    """A whole file: a dict with one key a value."""
    pairs = b"".join(short(f"k{i}") + v for i, v in enumerate(values))
    return b"\x80\x04}(" + pairs + b"u."


def test_the_hand_made_file_is_good(path):
    got = read(path, table(tensor(), tensor(offset=1, size=(3,))))
    assert got["k0"].tolist() == [0, 1, 2, 3] and got["k1"].tolist() == [1, 2, 3]


HOSTILE = {
    "os.system": (lambda: pickle.dumps(Call(os.system, "touch owned")), r"KeyError.*(posix|nt)\.system"),
    "os.system as a value": (lambda: pickle.dumps({"a": Call(os.system, "touch owned")}), "KeyError"),
    "os.system as a key": (lambda: pickle.dumps({Call(os.system, "touch owned"): 1}), "KeyError"),
    "os.system in protocol 0": (lambda: b"cos\nsystem\n(S'touch owned'\ntR.", r"KeyError.*os\.system"),
    "eval": (lambda: pickle.dumps(Call(eval, "open('owned', 'w')")), r"KeyError.*builtins\.eval"),
    "eval two deep": (lambda: pickle.dumps({"a": [({"b": Call(eval, "1")},)]}), r"builtins\.eval"),
    "exec after a tensor": (lambda: pickle.dumps({"a": TWO["A"], "b": Call(exec, "1")}), r"builtins\.exec"),
    "getattr": (lambda: pickle.dumps(Call(getattr, "x", "__class__")), r"builtins\.getattr"),
    "a chain of getattr": (
        lambda: pickle.dumps(Call(getattr, Call(getattr, Call(getattr, 1, "__class__"), "__base__"), "__subclasses__")),
        r"builtins\.getattr",
    ),
    "torch.load": (lambda: b"\x80\x04" + short("torch") + short("load") + FUNCTION + b".", r"KeyError.*torch\.load"),
    "a dotted name": (
        lambda: b"\x80\x04" + short("torch._utils") + short("_rebuild_tensor_v2.__globals__") + FUNCTION + b".",
        "__globals__",
    ),
    "a name by a name": (lambda: b"\x80\x04" + TAKE + short("x") + FUNCTION + b".", "requires str"),
    "inst": (lambda: b"\x80\x04(X\x01\x00\x00\x00aios\nsystem\n.", r"KeyError\(\d+\)"),
    "obj": (lambda: b"\x80\x04(cos\nsystem\no.", r"os\.system"),
    "newobj": (lambda: b"\x80\x04" + TAKE + b")\x81.", r"KeyError\(\d+\)"),
    "newobj with words": (lambda: b"\x80\x04" + TAKE + b")}\x92.", r"KeyError\(\d+\)"),
    "build": (lambda: table(EMPTY + b"}" + short("__class__") + short("x") + b"sb"), r"KeyError\(\d+\)"),
    "extension": (lambda: b"\x80\x04\x82\x01.", r"KeyError\(\d+\)"),
    "persistent word": (lambda: b"\x80\x04Pfile\n.", r"KeyError\(\d+\)"),
    "persistent in the outer file": (
        lambda: b"\x80\x04(" + short("storage") + TAKE + short("0") + short("cpu") + number(4) + b"NtQ.",
        "has no attribute",
    ),
    "calling a word": (lambda: b"\x80\x04" + short("eval") + b")R.", "not callable"),
    "calling a dict": (lambda: b"\x80\x04})R.", "not callable"),
    "calling a type inside": (
        lambda: table(tensor(storage(stored=b"\x80\x02ctorch\nFloatStorage\n)R."))),
        "not callable",
    ),
    "os.system inside the numbers": (
        lambda: table(tensor(storage(stored=pickle.dumps(Call(os.system, "touch owned"), 2)))),
        r"KeyError.*(posix|nt)\.system",
    ),
    "numbers inside the numbers": (
        lambda: table(tensor(storage(stored=b"\x80\x04" + TAKE + blob(storage()) + b"\x85R."))),
        r"_load_from_bytes",
    ),
    "an OrderedDict with content": (
        lambda: table(short("collections") + short("OrderedDict") + FUNCTION + b"]\x85R"),
        "positional argument",
    ),
    "a list of itself": (lambda: b"\x80\x04]\x94h\x00a.", "has no attribute"),
    "a dict of itself": (lambda: b"\x80\x04}\x94" + short("a") + b"h\x00s.", "something else"),
    "a dict in a dict": (lambda: pickle.dumps({"a": TWO}), "something else"),
    "a key that takes forever to hash": (
        lambda: b"\x80\x04})" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(120)) + number(1) + b"s.",
        "a key is no word",
    ),
    "the same name twice": (lambda: b"\x80\x04}(" + (short("a") + tensor()) * 2 + b"u.", "stands twice"),
    "one storage for many": (
        lambda: table(
            tensor(got=TAKE + blob(storage(n=1000, numbers=bytes(4000))) + b"\x85R\x94", size=(1000,)),
            *[tensor(got=b"h\x00", size=(1000,))] * 9,
        ),
        "more numbers than bytes",
    ),
    "one block of bytes for many": (
        lambda: table(
            tensor(got=TAKE + blob(storage(n=1000, numbers=bytes(4000))) + b"\x94\x85R", size=(1000,)),
            *[tensor(got=TAKE + b"h\x00\x85R", size=(1000,))] * 9,
        ),
        "more numbers than bytes",
    ),
    "a tensor that repeats one number": (lambda: table(tensor(size=(10**9,), stride=(0,))), "do not lie in a row"),
    "a negative start": (lambda: table(tensor(offset=-1)), "do not lie in a row"),
    "a shape of a thousand dimensions": (
        lambda: table(tensor(size=(1,) * 1000, stride=(1,) * 1000)),
        "do not lie in a row",
    ),
    "a shape of words": (
        lambda: table(tensor().replace(b"(K\x04t", b"(" + short("4") + b"t", 1)),
        "do not lie in a row",
    ),
    "a big-endian machine": (lambda: table(tensor(storage(system=pickle.dumps({}, 2)))), "old format"),
    "another magic number": (lambda: table(tensor(storage(magic=pickle.dumps(1, 2)))), "old format"),
    "a quantised storage": (
        lambda: table(tensor(storage(stored=storage_of("QInt8Storage")))),
        r"KeyError.*torch\.QInt8Storage",
    ),
    "numbers on a GPU": (
        lambda: table(tensor(storage().replace(b"\x03\x00\x00\x00cpu", b"\x03\x00\x00\x00gpu"))),
        "old format",
    ),
    "an array of numpy": (lambda: pickle.dumps({"a": np.arange(3)}), r"KeyError.*numpy"),
    "an empty dict": (lambda: pickle.dumps({}), "something else"),
    "a word": (lambda: pickle.dumps("hello"), "has no attribute"),
    "a function": (lambda: b"\x80\x04" + TAKE + b".", "has no attribute"),
    "a float": (lambda: pickle.dumps({"a": 1.5}), r"KeyError\(\d+\)"),
    "half a character": (lambda: b"\x80\x04}X\x03\x00\x00\x00\xed\xa0\x80" + tensor() + b"s.", "damaged"),
}


def storage_of(name):
    named = f"X\x07\x00\x00\x00storagectorch\n{name}\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu".encode("latin1")
    return b"\x80\x02(" + named + number(4) + b"NtQ."


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_and_does_nothing(path, monkeypatch, name):
    monkeypatch.chdir(path.parent)
    make, says = HOSTILE[name]
    with pytest.raises(DataError, match=says):
        read(path, make())
    assert not Path("owned").exists()


DAMAGED = {
    "empty": b"",
    "text": b"hello\n",
    "a page of a web site": b"<!DOCTYPE html><html></html>",
    "cut": pickle.dumps(TWO)[:-20],
    "without an end": table(tensor())[:-1],
    "nothing on the stack": b"\x80\x04.",
    "two values at the end": b"\x80\x04NN.",
    "a value from nowhere": b"\x80\x04h\x07.",
    "a group without a beginning": b"\x80\x04t.",
    "a tuple of nothing": b"\x80\x04\x87.",
    "keep nothing": b"\x80\x04\x94.",
    "a key without a value": b"\x80\x04}(" + short("a") + b"u.",
    "fill nothing": b"\x80\x04(u.",
    "a zip of torch.save": None,
    "a length of an exabyte": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
    "a word of an exabyte": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x.",
    "a frame of an exabyte": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
    "a number of two gigabytes": b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "a negative length": b"\x80\x04\x8b" + struct.pack("<i", -5) + b"x.",
    "more numbers than bytes": table(tensor(storage(n=2**40))),
    "fewer than nothing": table(tensor(storage(n=-1))),
    "fewer bytes than numbers": table(tensor(storage(numbers=b"\x00" * 7))),
    "a shape larger than its numbers": table(tensor(size=(5,))),
    "a start behind the end": table(tensor(offset=4)),
    "keys of another": table(tensor(storage(keys=pickle.dumps(["1"], 2)))),
    "no numbers at all": table(tensor(b"\x80\x02N." * 5)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named(path, name):
    content = DAMAGED[name]
    if content is None:
        buffer = io.BytesIO()
        torch.save(TWO, buffer)
        content = buffer.getvalue()
    with pytest.raises(DataError, match=r"t\.pkl is damaged"):
        read(path, content)


def test_a_far_memo_costs_nothing(path):
    far = b"r" + struct.pack("<I", 2**32 - 1)  # the usual reader would make room for four thousand million values
    got = read(path, b"\x80\x04}(" + short("a") + tensor() + far + b"u.")
    assert got["a"].tolist() == [0, 1, 2, 3]


def test_a_file_that_is_too_large_is_not_read(path, monkeypatch):
    monkeypatch.setattr(tensors, "MOST", 100)
    with pytest.raises(DataError, match="at most 100"):
        read(path, pickle.dumps(TWO))


def test_deep_and_costly_comparisons_do_nothing(path):
    """Two tuples of tuples that are equal take 2^120 steps to compare, or to write out."""
    bomb = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(120))
    described = b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + bomb
    described += b"X\x03\x00\x00\x00cpu" + number(4) + b"NtQ."
    keys = b"\x80\x02]" + bomb + b"a."
    for content in (table(tensor(storage(stored=described, keys=keys))), b"\x80\x04" + bomb + b"."):
        with pytest.raises(DataError, match=r"t\.pkl is damaged"):
            read(path, content)
    with pytest.raises(DataError):
        read(path, b"\x80\x04" + (b"(" * 50_000) + b".")


HONEST = pickle.dumps(TWO)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, len(HONEST) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, len(HONEST)),
)
def test_any_change_is_refused_or_read_as_tensors(path, flips, cut):
    content = bytearray(HONEST)
    for at, byte in flips:
        content[at] = byte
    try:
        got = read(path, bytes(content[: cut or None]))
    except DataError:
        return
    assert all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in got.items())
    assert sum(v.nbytes for v in got.values()) <= len(HONEST)
