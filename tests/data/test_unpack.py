"""Archives that want more than to be unpacked: nothing lands outside, nothing half, nothing endless."""

import bz2
import errno
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.data import unpack
from shared.data.errors import DataError

PACK = {"tar": bytes, "tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}
FILES = {"a/x.csv": b"g,c\nA,1\n" * 50, "a/b/y.csv": b"g,c\nB,2\n", "z.txt": b""}
TARS = tuple(PACK)
ALL = ("zip", *TARS)
EVIL = (
    "../evil",
    "a/../../evil",
    "/evil",
    "\\evil",
    "..\\evil",
    "a\\..\\..\\evil",
    "C:evil",
    "C:\\evil",
    "//host/evil",
)


def packed(folder: Path, kind: str, files, name="archive") -> Path:
    """An archive of (name, bytes) pairs or of a dict; in a tar, a TarInfo may stand in place of a name."""
    path = folder / f"{name}.{kind}"
    pairs = files.items() if isinstance(files, dict) else files
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as z:
            for n, data in pairs:
                z.writestr(n, data)
        path.write_bytes(buffer.getvalue())
        return path
    with tarfile.open(fileobj=buffer, mode="w") as t:
        for n, data in pairs:
            info = n if isinstance(n, tarfile.TarInfo) else tarfile.TarInfo(n)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    path.write_bytes(PACK[kind](buffer.getvalue()))
    return path


def special(name, kind, target="x"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def everything(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def refused(path, names, into, match):
    """It raises, and the folder around it is as it was."""
    before = everything(path.parent)
    with pytest.raises(DataError, match=match) as e:
        unpack.members(path, names, into)
    assert everything(path.parent) == before
    return e.value


@pytest.mark.parametrize("kind", ALL)
def test_only_what_was_asked_for(tmp_path, kind):
    path, into = packed(tmp_path, kind, FILES), tmp_path / "out"
    found = unpack.members(path, ["a/b/y.csv", "a/x.csv"], into)
    assert found == [into / "a/b/y.csv", into / "a/x.csv"]
    assert [p.read_bytes() for p in found] == [FILES["a/b/y.csv"], FILES["a/x.csv"]]
    assert everything(tmp_path) == sorted([path.name, "out", "out/a", "out/a/b", "out/a/b/y.csv", "out/a/x.csv"])
    assert all(not p.stat().st_mode & 0o6111 for p in found)


@pytest.mark.parametrize("kind", ALL)
def test_an_archive_within_an_archive(tmp_path, kind):
    """The list of a zip stands at its end, where a tar may hold a whole zip."""
    inner = packed(tmp_path, "zip", FILES, "inner").read_bytes()
    path = packed(tmp_path, kind, {"a.csv": b"1", "inner.zip": inner})
    assert [p.read_bytes() for p in unpack.members(path, ["a.csv", "inner.zip"], tmp_path / "out")] == [b"1", inner]


@pytest.mark.parametrize("kind", ALL)
def test_a_name_that_is_not_there(tmp_path, kind):
    refused(packed(tmp_path, kind, FILES), ["a/x.csv", "a/nope.csv"], tmp_path / "out", r"it has no file a/nope\.csv")


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("asked", [True, False])
def test_a_name_that_leads_outside(tmp_path, kind, name, asked):
    (tmp_path / "in").mkdir()
    path = packed(tmp_path / "in", kind, {"a/x.csv": b"1", name: b"evil"})
    refused(path, [name] if asked else ["a/x.csv"], tmp_path / "in" / "out", "leads outside")
    assert everything(tmp_path) == ["in", f"in/{path.name}"]


@pytest.mark.parametrize("kind", ALL)
def test_dots_that_stay_inside(tmp_path, kind):
    path = packed(tmp_path, kind, {"./a/./x..csv": b"1"})
    assert unpack.members(path, ["a/x..csv"], tmp_path / "out") == [tmp_path / "out/a/x..csv"]


@pytest.mark.parametrize("kind", TARS)
@pytest.mark.parametrize(
    "type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE]
)
def test_links_and_devices_in_a_tar(tmp_path, kind, type_):
    path = packed(tmp_path, kind, [(special("a/link", type_, "/etc/passwd"), b""), ("a/x.csv", b"1")])
    if type_ != tarfile.CONTTYPE:  # which is a plain file under another name
        refused(path, ["a/x.csv", "a/link"], tmp_path / "out", "is a link or a device")
    assert unpack.members(path, ["a/x.csv"], tmp_path / "out")[0].read_bytes() == b"1"


def test_a_file_through_a_link(tmp_path):
    """A link to a folder outside, then a file in it."""
    (tmp_path / "in").mkdir()
    members = [(special("a", tarfile.SYMTYPE, "../.."), b""), ("a/evil", b"evil")]
    path = packed(tmp_path / "in", "tar", members)
    refused(path, ["a", "a/evil"], tmp_path / "in" / "out", "is a link")
    (out,) = unpack.members(path, ["a/evil"], tmp_path / "in" / "out")
    assert out == tmp_path / "in/out/a/evil" and not out.parent.is_symlink() and not (tmp_path / "evil").exists()


def test_a_link_in_a_zip(tmp_path):
    info = zipfile.ZipInfo("a/link")
    info.external_attr = 0o120777 << 16
    path = packed(tmp_path, "zip", [(info, b"/etc/passwd"), ("a/x.csv", b"1")])
    refused(path, ["a/link"], tmp_path / "out", "is a link or a device")
    assert unpack.members(path, ["a/x.csv"], tmp_path / "out")[0].read_bytes() == b"1"


def test_an_encrypted_member(tmp_path):
    path = packed(tmp_path, "zip", {"x.csv": b"1"})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))
    refused(path, ["x.csv"], tmp_path / "out", "is encrypted")


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["a/x.csv", "./a/x.csv"])
def test_a_name_that_comes_twice(tmp_path, kind, second):
    path = packed(tmp_path, kind, [("a/x.csv", b"1"), (second, b"2"), ("y.csv", b"3")])
    refused(path, ["a/x.csv"], tmp_path / "out", "twice")
    assert unpack.members(path, ["y.csv"], tmp_path / "out")[0].read_bytes() == b"3"


@pytest.mark.parametrize("kind", ALL)
def test_a_file_that_is_also_a_folder(tmp_path, kind):
    refused(packed(tmp_path, kind, [("a", b"1"), ("a/x", b"2")]), ["a", "a/x"], tmp_path / "out", "cannot be unpacked")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("asked", ["zeros", "x"])
def test_a_bomb(tmp_path, kind, asked, monkeypatch):
    monkeypatch.setattr(unpack, "FLOOR", 1 << 20)
    monkeypatch.setattr(unpack, "RATIO", 200)
    path = packed(tmp_path, kind, {"zeros": bytes(8 << 20), "x": b"1"})
    refused(path, [asked], tmp_path / "out", "a bomb")


def test_a_zip_that_lies_about_sizes(tmp_path, monkeypatch):
    """Its list says 10 bytes; the packed data hold 8 MB."""
    monkeypatch.setattr(unpack, "FLOOR", 1 << 20)
    path = packed(tmp_path, "zip", {"zeros": bytes(8 << 20)})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = (10).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    refused(path, ["zeros"], tmp_path / "out", "damaged|size")


def test_a_tar_that_lies_about_sizes(tmp_path):
    """A header, packed small, that promises the largest file a tar can hold."""
    info = tarfile.TarInfo("huge")
    info.size = 1 << 62
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240)))
    refused(path, ["huge"], tmp_path / "out", "disk|damaged|size")


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.98])
def test_an_archive_that_was_cut(tmp_path, kind, keep):
    path = packed(tmp_path, kind, {"a": os.urandom(40_000), "b": os.urandom(40_000)})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    if kind == "tar" and keep == 0.98:  # only the empty blocks at the end are missing
        pytest.skip("a tar that lacks its last empty blocks is whole")
    refused(path, ["b"], tmp_path / "out", "damaged|no zip or tar")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_damaged_byte(tmp_path, kind):
    path = packed(tmp_path, kind, {"a": os.urandom(40_000)})
    data = bytearray(path.read_bytes())
    data[20_000] ^= 0xFF
    path.write_bytes(bytes(data))
    refused(path, ["a"], tmp_path / "out", "damaged")


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"PK\x03\x04", b"\x1f\x8b" + bytes(50), gzip.compress(b"a,b\n1,2\n", mtime=0)]
)
def test_what_is_no_archive(tmp_path, data):
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    refused(path, ["a"], tmp_path / "out", "damaged|no zip or tar")


def test_an_archive_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        unpack.members(tmp_path / "no.zip", ["a"], tmp_path / "out")


def test_a_full_disk(tmp_path, monkeypatch):
    def full(source, out, length):
        out.write(b"what had room")
        raise OSError(errno.ENOSPC, "No space left on device")

    path = packed(tmp_path, "zip", FILES)
    monkeypatch.setattr(unpack.shutil, "copyfileobj", full)
    refused(path, ["a/x.csv"], tmp_path / "out", "the disk of .* is full; make room")


def test_a_folder_that_has_files_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("keep")
    with pytest.raises(FileExistsError):
        unpack.members(packed(tmp_path, "zip", FILES), ["z.txt"], tmp_path / "out")
    assert (tmp_path / "out" / "x").read_text() == "keep"


names = st.lists(st.sampled_from(["..", ".", "a", "b.csv", "", "C:", "x\\..", "\\", "é", " "]), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    parts=st.lists(names.map("/".join), min_size=1, max_size=4), kind=st.sampled_from(["zip", "tar"]), data=st.data()
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_whatever_the_names(tmp_path_factory, parts, kind, data):
    """Files inside and as asked, or our own error and no trace."""
    top = tmp_path_factory.mktemp("any")
    (top / "in").mkdir()
    path = packed(top / "in", kind, [(n or "n", str(i).encode()) for i, n in enumerate(parts)])
    wanted = data.draw(st.lists(st.sampled_from(parts), max_size=3))
    into, found = top / "in" / "out", None
    try:
        found = unpack.members(path, wanted, into)
    except DataError:
        assert not into.exists()
    assert set(everything(top)) - {"in", f"in/{path.name}"} == {
        p.relative_to(top).as_posix() for p in ([into, *into.rglob("*")] if found is not None else [])
    }
    for p in found or ():
        assert p.is_file() and p.resolve().is_relative_to(into.resolve())
