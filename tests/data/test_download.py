"""Files from a server that misbehaves: the right file or none, whatever happens."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import platformdirs
import pytest
from awkward_server import Answer, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from shared.data import catalogue, download, store
from shared.data.catalogue import File
from shared.data.errors import DataError, Unavailable

BODY = bytes(range(256)) * 40
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def server():
    with serving() as s:
        yield s


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """A cache of its own, and little patience."""
    monkeypatch.setenv("BORROWED_CACHE", str(tmp_path / "cache"))
    for name in ("BORROWED_MIRROR", "BORROWED_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "WAIT", 0.0)
    monkeypatch.setattr(download, "STALL", 0.3)
    download._session.cache_clear()
    yield
    download._session().close()
    download._session.cache_clear()


def pinned(server, path, body=BODY, *, more=(), name=None):
    name = name or path.strip("/")
    return File(name, sha(body), len(body), urls=(server.url(path), *more))


def unpinned(server, path, name=None):
    return File(name or path.strip("/"), urls=(server.url(path),))


def official(file, **more):
    return download.get(file, kind="official", progress=False, **more)


def left(tmp_path):
    """What lies in the cache, but locks and notes; a note on a part needs its part."""
    files = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert all(p.with_suffix("").exists() for p in files if p.name.endswith(".part.json"))
    return sorted(p.name for p in files if p.suffix not in (".lock", ".json"))


# The plain way


def test_a_file_is_fetched_once(server, tmp_path):
    server.put("/once.bin", Answer(BODY))
    file = pinned(server, "/once.bin")
    path = official(file)
    assert path.read_bytes() == BODY and path.name == "once.bin" and left(tmp_path) == ["once.bin"]
    server.put("/once.bin", Answer(status=404))
    assert official(file) == path and store.read_note(path)["sha256"] == sha(BODY)


def test_two_sources_with_one_name_do_not_meet(server):
    server.put("/a/x.bin", Answer(b"one"))
    server.put("/b/x.bin", Answer(b"two"))
    paths = [official(unpinned(server, p, "x.bin")) for p in ("/a/x.bin", "/b/x.bin")]
    assert [p.read_bytes() for p in paths] == [b"one", b"two"]


def test_a_bundled_file_is_checked(monkeypatch, tmp_path):
    assert download.get(catalogue.entry("pbmc").routes[0].files[0], kind="bundled").name == "pbmc.h5ad"
    monkeypatch.setattr(download, "home", lambda: tmp_path)
    (tmp_path / "a.bin").write_bytes(BODY)
    assert download.get(File("a.bin", sha(BODY), 1), kind="bundled") == tmp_path / "a.bin"
    with pytest.raises(DataError, match="not the file the catalogue describes"):
        download.get(File("a.bin", sha(b"other"), 1), kind="bundled")
    with pytest.raises(DataError, match=r"b\.bin is missing: restore"):
        download.get(File("b.bin", sha(BODY), 1), kind="bundled")


def test_the_cache_is_where_the_system_has_caches(monkeypatch, tmp_path):
    assert store.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("BORROWED_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    monkeypatch.setattr(platformdirs, "PlatformDirs", Unix)
    assert store.cache_folder() == tmp_path / "x" / "borrowed-strength"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(platformdirs, "PlatformDirs", MacOS)
    assert store.cache_folder() == Path.home() / "Library" / "Caches" / "borrowed-strength"


def test_a_redirect_is_followed_and_a_circle_is_not(server):
    server.put("/there.bin", Answer(BODY))
    server.put("/here.bin", Answer(status=302, headers={"Location": "/there.bin"}))
    assert official(pinned(server, "/here.bin")).read_bytes() == BODY
    server.put("/circle.bin", Answer(status=302, headers={"Location": "/circle.bin"}))
    with pytest.raises(Unavailable, match="without end"):
        official(pinned(server, "/circle.bin"))


# Trouble that passes


def test_a_busy_server_is_asked_again(server):
    server.put("/busy.bin", Answer(status=503), Answer(status=429), Answer(BODY))
    assert official(pinned(server, "/busy.bin")).read_bytes() == BODY
    assert len(server.headers("/busy.bin", "range")) == 3


def test_a_server_cannot_make_us_wait_for_long(server, monkeypatch):
    monkeypatch.setattr(download, "LONGEST_WAIT", 0.05)
    server.put("/later.bin", Answer(status=503, headers={"Retry-After": "3600"}), Answer(BODY))
    start = time.monotonic()
    assert official(pinned(server, "/later.bin")).read_bytes() == BODY
    assert time.monotonic() - start < 5


def test_a_cut_transfer_goes_on_where_it_stopped(server, tmp_path):
    server.put("/cut.bin", Answer(BODY, cut=4000), Answer(BODY, cut=2000), Answer(BODY))
    assert official(pinned(server, "/cut.bin")).read_bytes() == BODY
    assert server.headers("/cut.bin", "range") == [None, "bytes=4000-", "bytes=6000-"]
    assert server.headers("/cut.bin", "if-range") == [None, '"v1"', '"v1"']
    assert left(tmp_path) == ["cut.bin"]


def test_a_short_body_is_noticed_whoever_counts(server, monkeypatch):
    """Older versions of the library below do not compare what came with what was promised."""
    real = download._chunks

    def uncounted(response, decode):
        with contextlib.suppress(download._Broken):
            yield from real(response, decode)

    monkeypatch.setattr(download, "_chunks", uncounted)
    server.put("/short.csv", Answer(BODY, cut=4000), Answer(BODY))
    assert official(unpinned(server, "/short.csv")).read_bytes() == BODY


def test_a_part_is_kept_for_the_next_call(server, tmp_path):
    server.put("/later.bin", Answer(BODY, cut=4000), Answer(status=404))
    with pytest.raises(Unavailable, match="404"):
        official(pinned(server, "/later.bin"))
    assert left(tmp_path) == ["later.bin.part"]
    server.put("/later.bin", Answer(BODY))
    assert official(pinned(server, "/later.bin")).read_bytes() == BODY
    assert server.headers("/later.bin", "range")[-1] == "bytes=4000-"


@pytest.mark.parametrize("pin", [True, False])
def test_a_file_that_changed_starts_again(server, pin):
    path, new = f"/changed{pin}.bin", BODY[::-1]
    server.put(path, Answer(BODY, cut=4000), Answer(new, etag='"v2"'))
    file = pinned(server, path, new) if pin else unpinned(server, path)
    assert official(file).read_bytes() == new


@pytest.mark.parametrize("pin", [True, False])
def test_a_server_that_mixes_versions_is_found_out(server, pin):
    """It ignores If-Range, and goes on with the second version where the first stopped."""
    path, new = f"/mixed{pin}.bin", BODY[::-1]
    server.put(path, Answer(BODY, cut=4000), Answer(new, etag='"v2"', heeds_if_range=False))
    file = pinned(server, path, new) if pin else unpinned(server, path)
    assert official(file).read_bytes() == new


def test_without_a_mark_only_a_pinned_file_goes_on(server):
    for path in ("/p.bin", "/u.bin"):
        server.put(path, Answer(BODY, cut=4000, etag=None), Answer(BODY, etag=None))
    assert official(pinned(server, "/p.bin")).read_bytes() == BODY
    assert official(unpinned(server, "/u.bin")).read_bytes() == BODY
    assert server.headers("/p.bin", "range") == [None, "bytes=4000-"]
    assert server.headers("/u.bin", "range") == [None, None]


def test_a_wrong_part_is_thrown_away_once(server):
    server.put("/junk.bin", Answer(BODY[::-1], cut=4000, etag=None), Answer(BODY, etag=None))
    assert official(pinned(server, "/junk.bin")).read_bytes() == BODY
    assert server.headers("/junk.bin", "range") == [None, "bytes=4000-", None]


def test_a_wrong_file_in_pieces_has_an_end(server):
    """Every download of it is cut once, so that each could be a mix of two versions."""
    server.put("/pieces.bin", Answer(BODY[::-1], cut=6000))
    with pytest.raises(DataError, match="its sha256 differs"):
        official(pinned(server, "/pieces.bin"))
    assert len(server.headers("/pieces.bin", "range")) == 4


def test_a_server_that_ignores_range(server):
    server.put("/whole.bin", Answer(BODY, cut=4000), Answer(BODY, ranges=False))
    assert official(pinned(server, "/whole.bin")).read_bytes() == BODY


def test_a_server_that_goes_on_elsewhere(server):
    server.put("/span.bin", Answer(BODY, cut=4000), Answer(BODY, span="bytes 3000-10239/10240"), Answer(BODY))
    assert official(pinned(server, "/span.bin")).read_bytes() == BODY


def test_a_part_that_is_too_long_starts_again(server):
    server.put("/long.bin", Answer(BODY))
    file = pinned(server, "/long.bin")
    part = Path(f"{store.place(file)}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(BODY * 2)
    store.write_note(part, {"address": file.urls[0], "mark": '"v1"'})
    assert official(file).read_bytes() == BODY


def test_a_whole_part_needs_no_request(server):
    file = pinned(server, "/whole-part.bin")
    part = Path(f"{store.place(file)}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(BODY)
    store.write_note(part, {"address": file.urls[0], "total": len(BODY)})
    assert official(file).read_bytes() == BODY and server.headers("/whole-part.bin", "range") == []


def test_a_silent_server_is_left(server):
    server.put("/stall.bin", Answer(BODY, stall=4000), Answer(BODY, stall=1000), Answer(BODY))
    start = time.monotonic()
    assert official(pinned(server, "/stall.bin")).read_bytes() == BODY
    assert 0.5 < time.monotonic() - start < 8


def test_a_server_that_stays_silent_is_said(server, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 2)
    server.put("/mute.bin", Answer(BODY, stall=4000))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1: it sent nothing for 0\.3 s"):
        official(pinned(server, "/mute.bin"))


def test_a_dripping_server_is_left(server, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    server.put("/drip.bin", Answer(BODY, drip=0.02))
    start = time.monotonic()
    with pytest.raises(Unavailable, match="it sent only"):
        official(pinned(server, "/drip.bin"))
    assert time.monotonic() - start < 10


def test_tries_have_an_end(server):
    server.put("/endless.bin", *[Answer(BODY, cut=10 * i, etag=f'"{i}"') for i in range(1, 40)])
    with pytest.raises(Unavailable, match="the connection broke"):
        official(unpinned(server, "/endless.bin"))
    assert len(server.headers("/endless.bin", "range")) <= 2 * download.TRIES


# Trouble that stays


def test_the_next_address_is_tried(server):
    server.put("/second.bin", Answer(BODY))
    dead = "http://127.0.0.1:9/second.bin"
    file = File("second.bin", sha(BODY), len(BODY), urls=(dead, server.url("/none.bin"), server.url("/second.bin")))
    assert official(file).read_bytes() == BODY


def test_a_pinned_part_goes_on_at_the_next_address(server):
    server.put("/first.bin", Answer(BODY, cut=4000), Answer(status=404))
    server.put("/other.bin", Answer(BODY, etag='"elsewhere"'))
    assert official(pinned(server, "/first.bin", more=[server.url("/other.bin")])).read_bytes() == BODY
    assert server.headers("/other.bin", "range") == ["bytes=4000-"]


def test_all_addresses_are_said(server, tmp_path):
    file = File(
        "gone.bin", sha(BODY), urls=("http://127.0.0.1:9/x", server.url("/gone.bin"), "gopher://old/x", "http://[x")
    )
    with pytest.raises(Unavailable) as e:
        official(file)
    for words in ("gone.bin cannot be fetched", "cannot be reached", "it answers 404", "BORROWED_MIRROR"):
        assert words in str(e.value)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(PAGE, kind="text/html; charset=utf-8"),
        Answer(PAGE),
        Answer(b"\xef\xbb\xbf \n" + PAGE.lower()),
        Answer(BODY, kind="text/html"),
    ],
)
@pytest.mark.parametrize("pin", [True, False])
def test_a_web_page_is_no_file(server, tmp_path, answer, pin):
    server.put("/page.csv", answer)
    file = pinned(server, "/page.csv") if pin else unpinned(server, "/page.csv")
    file = File(file.name, file.sha256, None, file.urls)
    with pytest.raises(Unavailable, match="web page"):
        official(file)
    assert left(tmp_path) == []


def test_a_web_page_that_was_asked_for(server):
    server.put("/table.html", Answer(PAGE, kind="text/html"))
    assert official(unpinned(server, "/table.html")).read_bytes() == PAGE


def test_a_web_page_leaves_a_part_alone(server, tmp_path):
    server.put("/portal.bin", Answer(BODY, cut=4000), Answer(PAGE, kind="text/html", ranges=False))
    with pytest.raises(Unavailable):
        official(pinned(server, "/portal.bin"))
    server.put("/portal.bin", Answer(BODY))
    assert official(pinned(server, "/portal.bin")).read_bytes() == BODY
    assert server.headers("/portal.bin", "range")[-1] == "bytes=4000-"


def test_a_wrong_hash_is_damage(server, tmp_path):
    server.put("/wrong.bin", Answer(BODY[::-1]))
    with pytest.raises(DataError, match="its sha256 differs") as e:
        official(pinned(server, "/wrong.bin"))
    assert not isinstance(e.value, Unavailable) and left(tmp_path) == []


def test_a_wrong_size_is_seen_before_the_body(server, tmp_path):
    server.put("/size.bin", Answer(BODY * 2))
    with pytest.raises(DataError, match="20,480 bytes, and the catalogue says 10,240"):
        official(pinned(server, "/size.bin"))
    assert left(tmp_path) == []


def archive(kind):
    """The bytes of a whole file of that kind."""
    buffer = io.BytesIO()
    if kind == "csv.gz":
        return gzip.compress(b"gene,cell\nA,1\n" * 500)
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("a.csv", b"gene,cell\nA,1\n" * 500)
    elif kind in ("tar", "tar.gz"):
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as t:
            info = tarfile.TarInfo("a.csv")
            info.size = 5000
            t.addfile(info, io.BytesIO(BODY))
    else:
        import h5py

        with h5py.File(buffer, "w") as f:
            f["x"] = list(range(500))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["csv.gz", "zip", "tar", "tar.gz", "h5"])
def test_a_truncated_file_without_a_known_hash_is_noticed(server, tmp_path, kind):
    whole = archive(kind)
    server.put(f"/t.{kind}", Answer(whole[: len(whole) // 2]))
    with pytest.raises(DataError, match="cut short or damaged") as e:
        official(unpinned(server, f"/t.{kind}"))
    assert not isinstance(e.value, Unavailable) and left(tmp_path) == []
    server.put(f"/t.{kind}", Answer(whole))
    assert official(unpinned(server, f"/t.{kind}")).read_bytes() == whole


def test_an_error_message_is_no_gzip(server):
    server.put("/said.csv.gz", Answer(b'{"error": "quota exceeded"}', kind="application/json"))
    with pytest.raises(Unavailable, match=r"it is no \.gz file"):
        official(unpinned(server, "/said.csv.gz"))


def test_bytes_are_taken_as_they_lie(server):
    """A server that calls a .gz file an encoding must not have it unpacked, and one that packs a .csv must."""
    packed = gzip.compress(BODY)
    server.put("/a.csv.gz", Answer(packed, headers={"Content-Encoding": "gzip"}))
    server.put("/a.csv", Answer(packed, headers={"Content-Encoding": "gzip"}))
    assert official(unpinned(server, "/a.csv.gz")).read_bytes() == packed
    assert official(unpinned(server, "/a.csv")).read_bytes() == BODY
    assert server.headers("/a.csv", "accept-encoding") == ["identity"]


def test_the_first_download_binds_the_later_ones(server):
    file = unpinned(server, "/first.csv")
    server.put("/first.csv", Answer(b"a,b\n1,2\n"))
    path = official(file)
    path.unlink()
    server.put("/first.csv", Answer(b"a,b\n1,3\n"))
    with pytest.raises(DataError, match="its sha256 differs; if the source has a new version that you want, remove"):
        official(file)
    shutil.rmtree(path.parent)
    assert official(file).read_bytes() == b"a,b\n1,3\n"


def test_a_damaged_copy_that_nothing_tells_of_is_fetched_again(server):
    """No note is left beside it, so that only its own packing shows the damage."""
    server.put("/lost.csv.gz", Answer(gzip.compress(BODY)))
    file = unpinned(server, "/lost.csv.gz")
    path = official(file)
    path.write_bytes(path.read_bytes()[:-20])
    Path(f"{path}.json").unlink()
    assert gzip.decompress(official(file).read_bytes()) == BODY


def test_the_library_below_is_quiet(server, tmp_path, capfd):
    """pooch would say of every file where it comes from."""
    server.put("/quiet.csv", Answer(BODY))
    official(unpinned(server, "/quiet.csv"))
    said = capfd.readouterr()
    assert said.out + said.err == "" and left(tmp_path) == ["quiet.csv"]


@pytest.mark.parametrize("body", [BODY, BODY[::-1], b""])
def test_a_process_that_is_killed_while_pooch_checks_loses_nothing(server, tmp_path, body):
    """What it leaves is a draft of pooch's in place of the part; it is checked like one, and swept away if wrong."""
    server.put("/draft.bin", Answer(BODY))
    file = pinned(server, "/draft.bin")
    place = store.place(file)
    place.parent.mkdir(parents=True)
    (place.parent / "tmpab_c12xy").write_bytes(body)
    store.write_note(Path(f"{place}.part"), {"address": file.urls[0], "total": len(BODY)})
    before = len(server.asked)
    assert official(file).read_bytes() == BODY and left(tmp_path) == ["draft.bin"]
    assert len(server.asked) - before == (body != BODY)


@pytest.mark.parametrize("pin", [True, False])
def test_a_damaged_copy_is_fetched_again(server, monkeypatch, pin):
    server.put("/rot.bin", Answer(BODY))
    file = pinned(server, "/rot.bin") if pin else unpinned(server, "/rot.bin")
    path = official(file)
    path.write_bytes(BODY[:-1])
    assert download.look(file, "official").state == "damaged"
    monkeypatch.setenv("BORROWED_OFFLINE", "1")
    with pytest.raises(DataError, match=r"cached copy of rot\.bin is damaged") as e:
        official(file)
    assert not isinstance(e.value, Unavailable)
    monkeypatch.delenv("BORROWED_OFFLINE")
    assert official(file).read_bytes() == BODY


def test_offline_means_offline(server, monkeypatch):
    server.put("/off.bin", Answer(BODY))
    monkeypatch.setenv("BORROWED_OFFLINE", "1")
    with pytest.raises(Unavailable, match="BORROWED_OFFLINE forbids"):
        official(pinned(server, "/off.bin"))
    assert server.headers("/off.bin", "range") == []
    monkeypatch.setenv("BORROWED_OFFLINE", "0")
    assert official(pinned(server, "/off.bin")).read_bytes() == BODY


def test_a_password_is_used_and_never_said(server, tmp_path):
    server.put("/locked.bin", Answer(BODY, user="ann:se:cret"))
    good, bad = (server.url("/locked.bin", user) for user in ("ann:se%3Acret@", "ann:wrongword@"))
    assert official(File("locked.bin", sha(BODY), urls=(good,))).read_bytes() == BODY
    with pytest.raises(Unavailable, match="it answers 401") as e:
        official(File("other.bin", sha(BODY), urls=(bad,)))
    assert "wrongword" not in str(e.value)
    server.put("/locked.bin", Answer(BODY, user="ann:se:cret", cut=4000), Answer(status=404))
    with pytest.raises(Unavailable):
        official(File("part.bin", sha(BODY), urls=(good,)))
    assert "part.bin.part" in left(tmp_path)
    assert not any(b"se%3Acret" in p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file())


# Disks


def test_a_full_disk_is_seen_before(server, tmp_path, monkeypatch):
    server.put("/big.bin", Answer(BODY))
    usage = shutil.disk_usage(tmp_path)._replace(free=download.SPARE + 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"big\.bin needs 0 MB, and 17 MB are free"):
        official(pinned(server, "/big.bin"))
    assert left(tmp_path) == []


@pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="no /dev/full, the disk that is always full, on this system"
)
def test_a_disk_that_fills_up_is_left_clean(server, tmp_path, monkeypatch):
    server.put("/full.bin", Answer(BODY))
    real = Path.open

    def full(self, mode="r", *args, **more):
        opened = real(self, mode, *args, **more)
        if mode != "ab":
            return opened
        opened.write(b"what had room")
        opened.close()
        return open("/dev/full", "wb", buffering=0)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DataError, match="the disk is full; make room") as e:
        official(pinned(server, "/full.bin"))
    assert not isinstance(e.value, Unavailable) and left(tmp_path) == []
    monkeypatch.setattr(Path, "open", real)
    assert official(pinned(server, "/full.bin")).read_bytes() == BODY


def test_a_cache_that_is_a_file(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BORROWED_CACHE", str(tmp_path / "file"))
    server.put("/x.bin", Answer(BODY))
    with pytest.raises(DataError, match="name a folder of yours in BORROWED_CACHE"):
        official(pinned(server, "/x.bin"))


# Mirrors


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    folder = tmp_path / "mirror"
    (folder / "deep" / "er").mkdir(parents=True)
    monkeypatch.setenv("BORROWED_MIRROR", str(folder))
    monkeypatch.setenv("BORROWED_OFFLINE", "1")
    return folder


def test_a_mirror_is_searched_by_name_and_hash(mirror):
    (mirror / "m.bin").write_bytes(BODY[::-1])
    (mirror / "deep" / "er" / "m.bin").write_bytes(BODY)
    file = File("m.bin", sha(BODY), len(BODY), urls=("http://127.0.0.1:9/m.bin",))
    assert official(file) == mirror / "deep" / "er" / "m.bin" and download.look(file, "official").state == "mirror"
    with pytest.raises(Unavailable, match=r"a file m\.bin in the mirror is not the right one: its sha256 differs"):
        official(File("m.bin", sha(b"third"), None, urls=file.urls))
    with pytest.raises(Unavailable, match="its size differs"):
        official(File("m.bin", sha(b"third"), 5, urls=file.urls))


def test_a_wrong_file_in_the_mirror_is_told_where_no_address_helps(mirror, monkeypatch, server):
    monkeypatch.delenv("BORROWED_OFFLINE")
    (mirror / "m.bin").write_bytes(BODY[::-1])
    server.put("/m.bin", Answer(status=404))
    gone = pinned(server, "/m.bin")
    with pytest.raises(
        Unavailable, match=r"^a file m\.bin in the mirror is not the right one: its sha256 differs; m.* 404"
    ):
        official(gone)


def test_several_mirrors(mirror, monkeypatch, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "m.bin").write_bytes(BODY)
    monkeypatch.setenv("BORROWED_MIRROR", os.pathsep.join([str(mirror), str(other)]))
    assert official(File("m.bin", sha(BODY), urls=("http://127.0.0.1:9/m.bin",))) == other / "m.bin"


def test_an_unpinned_file_of_a_mirror(mirror):
    file = File("u.csv.gz", urls=("http://127.0.0.1:9/u.csv.gz",))
    whole = archive("csv.gz")
    (mirror / "u.csv.gz").write_bytes(whole[:-20])
    with pytest.raises(Unavailable, match="cut short"):
        official(file)
    (mirror / "u.csv.gz").write_bytes(whole)
    assert official(file) == mirror / "u.csv.gz" and store.known_sha256(file) == sha(whole)
    (mirror / "u.csv.gz").write_bytes(gzip.compress(b"another"))
    with pytest.raises(Unavailable, match="its sha256 differs"):
        official(file)


def test_a_mirror_with_two_answers(mirror):
    file = File("u.csv", urls=("http://127.0.0.1:9/u.csv",))
    (mirror / "u.csv").write_bytes(b"1")
    (mirror / "deep" / "u.csv").write_bytes(b"1")
    assert official(file) == mirror / "u.csv"
    (mirror / "v.csv").write_bytes(b"1")
    (mirror / "deep" / "v.csv").write_bytes(b"2")
    with pytest.raises(Unavailable, match=r"the mirror holds 2 different files v\.csv"):
        official(File("v.csv", urls=("http://127.0.0.1:9/v.csv",)))


def test_a_mirror_that_is_not_there(monkeypatch):
    monkeypatch.setenv("BORROWED_MIRROR", "no-such-folder")
    with pytest.raises(DataError, match="BORROWED_MIRROR names no-such-folder"):
        official(File("u.csv", urls=("http://127.0.0.1:9/u.csv",)))


def test_real_files_in_a_mirror(fixtures, monkeypatch):
    folder = fixtures("official/sc_mixology_data_csv")
    monkeypatch.setenv("BORROWED_MIRROR", str(folder.parent))
    monkeypatch.setenv("BORROWED_OFFLINE", "1")
    file = File("sc_dropseq.count.csv.gz", urls=("http://127.0.0.1:9/x",))
    assert official(file) == folder / "sc_dropseq.count.csv.gz"


# Many at once


def test_connections_have_a_cap(monkeypatch):
    """Of the process, not of one call: two calls at once share it. None is given up on a busy machine."""
    monkeypatch.setattr(download, "STALL", 20)
    with serving() as server:
        files = []
        for i in range(12):
            server.put(f"/many{i}.bin", Answer(BODY[: 100 + i], drip=0.002))
            files.append(unpinned(server, f"/many{i}.bin"))
        found = {}
        calls = [
            threading.Thread(target=lambda k=k: found.update({k: download.get_all(files[k::2], kind="official")}))
            for k in (0, 1)
        ]
        for c in calls:
            c.start()
        for c in calls:
            c.join()
        for k in (0, 1):
            assert [p.stat().st_size for p in found[k]] == list(range(100 + k, 112, 2))
        assert 1 < server.most <= download.CONNECTIONS


def test_damage_is_the_worse_news(server):
    server.put("/bad.bin", Answer(BODY[::-1]))
    files = [pinned(server, "/absent.bin"), pinned(server, "/bad.bin")]
    with pytest.raises(DataError, match="sha256 differs") as e:
        download.get_all(files, kind="official", progress=False)
    assert not isinstance(e.value, Unavailable)


def test_a_stopped_transfer_keeps_its_part(server, tmp_path):
    server.put("/stop.bin", Answer(BODY, stall=4000))
    stop = threading.Event()
    timer = threading.Timer(0.1, stop.set)
    timer.start()
    with pytest.raises(Unavailable, match="stopped before it was fetched"):
        official(pinned(server, "/stop.bin"), stop=stop)
    timer.join()
    assert left(tmp_path) == ["stop.bin.part"]


def test_ctrl_c_stops_every_transfer(server, monkeypatch):
    """In a notebook the process lives on, and must not go on fetching."""
    monkeypatch.setattr(download, "TRIES", 10_000)
    files = []
    for i in range(3):
        server.put(f"/slow{i}.bin", Answer(BODY, stall=2000), Answer(BODY, stall=0))
        files.append(pinned(server, f"/slow{i}.bin"))
    real = threading.Thread.join

    def pressed(self, timeout=None):
        real(self, timeout)
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(threading.Thread, "join", pressed)
        with pytest.raises(KeyboardInterrupt):
            download.get_all(files, kind="official", progress=False)
    mine = [t for t in threading.enumerate() if t.name.endswith("(work)")]
    until(lambda: not any(t.is_alive() for t in mine), 10)
    assert mine


# Processes

SCRIPT = """
import sys
from shared.data import download
from shared.data.catalogue import File
download.STALL = 20
name, sha256, size, url = sys.argv[1:]
print(download.get(File(name, sha256, int(size), (url,)), kind="official"))
"""


def process(file, root):
    words = [sys.executable, "-c", SCRIPT, file.name, file.sha256, str(file.size), file.urls[0]]
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_two_processes_fetch_once(server, root, tmp_path):
    server.put("/pair.bin", Answer(BODY, drip=0.0002), Answer(status=404))
    file = pinned(server, "/pair.bin")
    both = [process(file, root) for _ in range(2)]
    said = [p.communicate(timeout=60) for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert said[0][0] == said[1][0] and Path(said[0][0].strip()).read_bytes() == BODY
    assert len(server.headers("/pair.bin", "range")) == 1 and left(tmp_path) == ["pair.bin"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT] if hasattr(signal, "SIGKILL") else [signal.SIGINT])
def test_a_killed_process_leaves_a_part_to_go_on_from(server, root, tmp_path, how):
    path = f"/killed{how}.bin"
    server.put(path, Answer(BODY, stall=6000), Answer(BODY))
    file = pinned(server, path)
    part = Path(f"{store.place(file)}.part")
    child = process(file, root)
    until(lambda: part.is_file() and part.stat().st_size == 6000)
    child.send_signal(how)
    child.communicate(timeout=30)
    assert child.returncode != 0 and left(tmp_path) == [part.name]
    assert official(file).read_bytes() == BODY  # the lock went with the process
    assert server.headers(path, "range") == [None, "bytes=6000-"] and left(tmp_path) == [path.strip("/")]


# Whatever happens

WHOLE = gzip.compress(bytes(range(256)) * 8, mtime=0) + gzip.compress(os.urandom(2000), mtime=0)
OTHER = gzip.compress(os.urandom(2500), mtime=0)
cuts = st.integers(0, len(WHOLE) - 1)
good = st.builds(Answer, st.just(WHOLE), ranges=st.booleans(), etag=st.sampled_from(['"v1"', 'W/"v1"', None]))
bad = st.one_of(
    st.builds(Answer, st.just(WHOLE), cut=cuts, etag=st.sampled_from(['"v1"', None]), length=st.booleans()),
    st.builds(Answer, st.just(OTHER), cut=st.none() | cuts, etag=st.sampled_from(['"v2"', '"v1"', None])),
    st.builds(Answer, st.just(OTHER), etag=st.just('"v2"'), heeds_if_range=st.just(False)),
    st.builds(lambda n: Answer(WHOLE[:n], etag='"short"'), cuts),
    st.builds(Answer, st.just(WHOLE), span=st.sampled_from(["bytes 0-9/10", "nonsense", "bytes 5-"])),
    st.sampled_from([Answer(status=s) for s in (302, 403, 404, 410, 416, 500, 503)]),
    st.sampled_from([Answer(PAGE, kind="text/html"), Answer(PAGE), Answer(b""), Answer(WHOLE + b"more")]),
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    calls=st.lists(st.tuples(st.lists(bad | good, min_size=1, max_size=4), st.booleans()), min_size=1, max_size=4),
    pin=st.booleans(),
)
def test_the_right_file_or_none(server, tmp_path_factory, calls, pin):
    """Under any sequence of failures; an unpinned file may be either whole version, but then stays that one."""
    folder = tmp_path_factory.mktemp("any")
    file = File("f.csv.gz", sha(WHOLE) if pin else None, None, urls=(server.url("/any.gz"), server.url("/any2.gz")))
    allowed = {WHOLE} if pin else {WHOLE, OTHER}
    os.environ["BORROWED_CACHE"] = str(folder)  # the fixture that sets it also puts it back
    final = store.place(file)
    for answers, twice in [*calls, ([Answer(WHOLE)], True)]:
        server.put("/any.gz", *answers)
        server.put("/any2.gz", *(answers if twice else [Answer(status=404)]))
        with contextlib.suppress(DataError):
            assert official(file).read_bytes() in allowed
        if final.exists():
            assert final.read_bytes() in allowed
            allowed = {final.read_bytes()}
            final.unlink()
    if pin:
        assert official(file).read_bytes() == WHOLE
    shutil.rmtree(folder)


def test_a_note_that_is_no_note(tmp_path):
    for text in ("", "[1]", "{", '"x"', "\0"):
        (tmp_path / "a.json").write_text(text)
        assert store.read_note(tmp_path / "a") == {}
    store.write_note(tmp_path / "a", {"b": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": 1}


def test_files_in_the_mirror_are_found_by_a_pattern(tmp_path, monkeypatch):
    deep = tmp_path / "one" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (deep / "labelled-a.h5ad").touch(), (tmp_path / "two" / "labelled-b.h5ad").touch(), (deep / "other.h5ad").touch()
    monkeypatch.setenv("BORROWED_MIRROR", os.pathsep.join(map(str, (tmp_path / "two", tmp_path / "one"))))
    assert store.in_mirror("labelled-*.h5ad") == [deep / "labelled-a.h5ad", tmp_path / "two" / "labelled-b.h5ad"]
    assert store.in_mirror("none.h5ad") == []
    monkeypatch.setenv("BORROWED_MIRROR", str(tmp_path / "three"))
    with pytest.raises(DataError, match="not a folder here"):
        store.in_mirror("*")
    monkeypatch.delenv("BORROWED_MIRROR")
    assert store.in_mirror("*") == []


def test_waiting_for_another_process_is_said_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(store, "SILENT", 0.05)
    told = threading.Event()

    def second():
        with store.locked(tmp_path / "cells.csv"):
            told.set()

    with store.locked(tmp_path / "cells.csv"):
        waiting = threading.Thread(target=second)
        waiting.start()
        assert not told.wait(0.3)
    waiting.join(5)
    assert told.is_set()
    assert capsys.readouterr().err.count("another process fetches cells.csv: waiting for it") == 1
