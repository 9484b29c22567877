"""Files from a server that misbehaves: the right file or none, whatever happens."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
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

from shared.data import cache, catalogue, download
from shared.data.catalogue import File
from shared.data.errors import DataError, Unavailable

BODY = bytes(range(256)) * 40
OTHER = BODY[::-1]
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"
DEAD = "http://127.0.0.1:9/x"


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def server():
    with serving() as s:
        yield s


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path, no_waits):
    """A cache of its own, and little patience."""
    monkeypatch.setenv("BORROWED_CACHE", str(tmp_path / "cache"))
    for name in ("BORROWED_MIRROR", "BORROWED_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "STALL", 0.3)


def pinned(server, path, body=BODY, *, more=()):
    return File(path.strip("/"), sha(body), len(body), urls=(server.url(path), *more))


def unpinned(server, path, name=None):
    return File(name or path.strip("/"), urls=(server.url(path),))


def official(file):
    return download.get(file, kind="official", progress=False)


def left(tmp_path):
    """What lies in the cache, but locks and notes; a note on a part needs its part."""
    files = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert all(p.with_suffix("").exists() for p in files if p.name.endswith(".part.json"))
    return sorted(p.name for p in files if p.suffix not in (".lock", ".json"))


def archive(kind):
    """The bytes of a whole file of that kind."""
    buffer = io.BytesIO()
    if kind == "csv.gz":
        return gzip.compress(b"gene,cell\nA,1\n" * 500)
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("a.csv", b"gene,cell\nA,1\n" * 500)
    elif kind == "tar.gz":
        with tarfile.open(fileobj=buffer, mode="w:gz") as t:
            info = tarfile.TarInfo("a.csv")
            info.size = 5000
            t.addfile(info, io.BytesIO(BODY))
    else:
        import h5py

        with h5py.File(buffer, "w") as f:
            f["x"] = list(range(500))
    return buffer.getvalue()


# The plain way


def test_a_file_is_fetched_once_and_nothing_is_said(server, tmp_path, capfd):
    """pooch would say of every file where it comes from."""
    server.put("/once.bin", Answer(BODY))
    file = pinned(server, "/once.bin")
    path = official(file)
    assert path.read_bytes() == BODY and path.name == "once.bin" and left(tmp_path) == ["once.bin"]
    server.put("/once.bin", Answer(status=404))
    assert official(file) == path
    assert not os.path.exists(f"{path}.part.json") and "".join(capfd.readouterr()) == ""


def test_two_sources_with_one_name_do_not_meet(server):
    server.put("/a/x.bin", Answer(b"one"))
    server.put("/b/x.bin", Answer(b"two"))
    paths = [official(unpinned(server, p, "x.bin")) for p in ("/a/x.bin", "/b/x.bin")]
    assert [p.read_bytes() for p in paths] == [b"one", b"two"]


def test_a_bundled_file_is_checked(monkeypatch, tmp_path):
    assert download.get(catalogue.entry("pbmc").routes[0].files[0], kind="bundled").name == "pbmc.h5ad"
    monkeypatch.setattr(download, "home", lambda: tmp_path)
    (tmp_path / "a.bin").write_bytes(BODY)
    assert download.get(File("a.bin", sha(BODY), len(BODY)), kind="bundled") == tmp_path / "a.bin"
    with pytest.raises(DataError, match="not the file the catalogue describes: its sha256 differs"):
        download.get(File("a.bin", sha(b"other"), len(BODY)), kind="bundled")
    with pytest.raises(DataError, match=r"b\.bin .* it is missing; restore"):
        download.get(File("b.bin", sha(BODY), 1), kind="bundled")


def test_a_redirect_is_followed(server):
    server.put("/there.bin", Answer(BODY))
    server.put("/here.bin", Answer(status=302, headers={"Location": "/there.bin"}))
    assert official(pinned(server, "/here.bin")).read_bytes() == BODY


def test_bytes_are_taken_as_they_lie(server):
    """A .gz file that a server calls an encoding is not unpacked, and a .csv that comes packed is refused."""
    packed = gzip.compress(BODY)
    server.put("/a.csv.gz", Answer(packed, headers={"Content-Encoding": "gzip"}))
    server.put("/a.csv", Answer(packed, headers={"Content-Encoding": "gzip"}))
    assert official(unpinned(server, "/a.csv.gz")).read_bytes() == packed
    with pytest.raises(Unavailable, match="it packs the file for the way"):
        official(unpinned(server, "/a.csv"))
    assert server.headers("/a.csv", "accept-encoding") == ["identity"]


# Faults that pass: the right file comes, and the ranges that were asked for on the way

CUT = Answer(BODY, cut=4000)
UNMARKED = {"etag": None}
RESUMED = [None, "bytes=4000-"]
PASSES = {
    "a busy server": ([Answer(status=503), Answer(status=429), Answer(BODY)], True, [None] * 3),
    "cut twice": ([CUT, Answer(BODY, cut=2000), Answer(BODY)], True, [*RESUMED, "bytes=6000-"]),
    "changed midway, by If-Range": ([Answer(OTHER, cut=4000, etag='"v0"'), Answer(BODY)], False, RESUMED),
    "changed midway, If-Range ignored": (
        [Answer(OTHER, cut=4000, etag='"v0"'), Answer(BODY, heeds_if_range=False)],
        False,
        [*RESUMED, None],
    ),
    "changed midway, unmarked": (
        [Answer(OTHER, cut=4000, **UNMARKED), Answer(BODY, **UNMARKED)],
        True,
        [*RESUMED, None],
    ),
    "unmarked, of a known sha256": ([Answer(BODY, cut=4000, **UNMARKED), Answer(BODY, **UNMARKED)], True, RESUMED),
    "unmarked, of no known sha256": ([Answer(BODY, cut=4000, **UNMARKED), Answer(BODY)], False, [None, None]),
    "ranges ignored": ([CUT, Answer(BODY, ranges=False)], True, RESUMED),
    "another range sent": ([CUT, Answer(BODY, span="bytes 3000-10239/10240"), Answer(BODY)], True, [*RESUMED, None]),
    "a stall": ([Answer(BODY, stall=4000), Answer(BODY)], True, RESUMED),
}


@pytest.mark.parametrize("fault", PASSES)
def test_a_fault_that_passes(server, tmp_path, fault):
    answers, known, ranges = PASSES[fault]
    path = f"/{fault.replace(' ', '-')}.csv"
    server.put(path, *answers)
    file = pinned(server, path) if known else unpinned(server, path)
    assert official(file).read_bytes() == BODY and left(tmp_path) == [file.name]
    assert server.headers(path, "range") == ranges


def test_a_short_body_is_noticed_whoever_counts(server, monkeypatch):
    """Older versions of the library below do not compare what came with what was promised."""
    real = download._chunks

    def uncounted(response):
        with contextlib.suppress(download.BrokenError):
            yield from real(response)

    monkeypatch.setattr(download, "_chunks", uncounted)
    server.put("/short.csv", Answer(BODY, cut=4000), Answer(BODY))
    assert official(unpinned(server, "/short.csv")).read_bytes() == BODY


def test_a_part_is_kept_for_the_next_call(server, tmp_path):
    """Also where a portal sends its page, or the address is gone; and another address may go on from it."""
    server.put("/later.bin", CUT, Answer(PAGE, kind="text/html", ranges=False), Answer(status=404))
    for match in ("web page", "404"):
        with pytest.raises(Unavailable, match=match):
            official(pinned(server, "/later.bin"))
        assert left(tmp_path) == ["later.bin.part"]
    server.put("/else.bin", Answer(BODY, etag='"elsewhere"'))
    assert official(pinned(server, "/later.bin", more=[server.url("/else.bin")])).read_bytes() == BODY
    assert server.headers("/else.bin", "range") == ["bytes=4000-"]


@pytest.mark.parametrize("part", [BODY * 2, BODY, b""])
def test_a_part_that_is_too_long_whole_or_empty(server, part):
    server.put("/part.bin", Answer(BODY))
    file = pinned(server, "/part.bin")
    path = Path(f"{cache.place(file)}.part")
    path.parent.mkdir(parents=True)
    path.write_bytes(part)
    cache.write_note(path, {"mark": '"v1"'})
    assert official(file).read_bytes() == BODY


def test_the_next_address_is_tried(server):
    server.put("/second.bin", Answer(BODY))
    file = File("second.bin", sha(BODY), urls=(DEAD, server.url("/none.bin"), server.url("/second.bin")))
    assert official(file).read_bytes() == BODY


# Faults that stay: an error that tells the cause, and nothing under the final name

PAGES = [Answer(PAGE, kind="text/html; charset=utf-8"), Answer(BODY, kind="text/html")]
TEXT = Answer(b'{"error": "quota exceeded"}', kind="application/json")
CIRCLE = Answer(status=302, headers={"Location": "/a-circle.csv"})
STAYS = {  # suffix, answers, known sha256, error, words, what is left beside the final name
    "wrong hash": (".csv", [Answer(OTHER)], True, DataError, "its sha256 differs", []),
    "wrong hash in pieces": (".csv", [Answer(OTHER, cut=6000)], True, DataError, "its sha256 differs", []),
    "wrong size": (".csv", [Answer(BODY * 2)], True, DataError, "its size differs", []),
    "a page": (".csv", [PAGES[0]], True, Unavailable, "web page", []),
    "a page of no known sha256": (".csv", [PAGES[0]], False, Unavailable, "web page", []),
    "called a page": (".csv", [PAGES[1]], False, Unavailable, "web page", []),
    "a page in secret": (".csv", [Answer(PAGE)], False, DataError, "web page", []),
    "a page behind a mark": (".csv", [Answer(b"\xef\xbb\xbf \n" + PAGE.lower())], False, DataError, "web page", []),
    "a message for a gzip": (".csv.gz", [TEXT], False, DataError, r"it is no \.gz file", []),
    "a circle": (".csv", [CIRCLE], True, Unavailable, "TooManyRedirects", []),
    "gone": (".csv", [Answer(status=410)], True, Unavailable, "it answers 410", []),
    "mute": (
        ".csv",
        [Answer(BODY, stall=40)],
        True,
        Unavailable,
        r"127\.0\.0\.1: it sent nothing for 0\.3 s",
        ["part"],
    ),
    "always cut": (
        ".csv",
        [Answer(BODY, cut=10 * i, etag=f'"{i}"') for i in range(1, 40)],
        False,
        Unavailable,
        "broke",
        ["part"],
    ),
    **{
        f"cut {kind}": (f".{kind}", [Answer(archive(kind)[:-30])], False, DataError, "cut short or damaged", [])
        for kind in ("csv.gz", "zip", "tar.gz", "h5")
    },
    "bomb": (".gz", [Answer(gzip.compress(bytes(80 << 20), 9))], False, DataError, "a bomb", []),
}


@pytest.mark.parametrize("fault", STAYS)
def test_a_fault_that_stays(server, tmp_path, monkeypatch, fault):
    suffix, answers, known, error, words, kept = STAYS[fault]
    path = f"/{fault.replace(' ', '-')}{suffix}"
    server.put(path, *answers)
    file = pinned(server, path) if known else unpinned(server, path)
    if fault.startswith("a page"):
        file = File(file.name, file.sha256, None, file.urls)
    with pytest.raises(DataError, match=words) as e:
        official(file)
    assert isinstance(e.value, Unavailable) == (error is Unavailable)
    assert left(tmp_path) == [f"{file.name}.{k}" for k in kept] and len(server.headers(path, "range")) <= 31
    if not known and not kept:  # the source repairs it: nothing of the first answer binds the second
        whole = archive(suffix[1:]) if suffix != ".csv" and suffix != ".gz" else gzip.compress(BODY)
        server.put(path, Answer(whole))
        assert official(file).read_bytes() == whole


def test_all_addresses_are_said(server, tmp_path):
    file = File("gone.bin", sha(BODY), urls=(DEAD, server.url("/gone.bin"), "gopher://old/x", "http://[x"))
    with pytest.raises(Unavailable) as e:
        official(file)
    for words in ("gone.bin cannot be fetched", "cannot be reached", "it answers 404", "BORROWED_MIRROR"):
        assert words in str(e.value)
    assert left(tmp_path) == []


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


@pytest.mark.parametrize("pin", [True, False])
def test_a_damaged_copy_is_fetched_again(server, monkeypatch, pin):
    server.put("/rot.bin", Answer(BODY))
    file = pinned(server, "/rot.bin") if pin else unpinned(server, "/rot.bin")
    path = official(file)
    path.write_bytes(BODY[:-1])
    assert download.find(file, "official").state == "damaged"
    monkeypatch.setenv("BORROWED_OFFLINE", "1")
    with pytest.raises(DataError, match=r"cached copy of rot\.bin is damaged") as e:
        official(file)
    assert not isinstance(e.value, Unavailable)
    monkeypatch.delenv("BORROWED_OFFLINE")
    assert official(file).read_bytes() == BODY


def test_a_damaged_copy_that_nothing_tells_of_is_fetched_again(server):
    """No note is left beside it, so that only its own packing shows the damage."""
    server.put("/lost.csv.gz", Answer(gzip.compress(BODY)))
    file = unpinned(server, "/lost.csv.gz")
    path = official(file)
    path.write_bytes(path.read_bytes()[:-20])
    Path(f"{path}.json").unlink()
    assert gzip.decompress(official(file).read_bytes()) == BODY


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


# Disks and folders


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


def test_the_cache_is_where_the_system_has_caches(monkeypatch, tmp_path):
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("BORROWED_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    monkeypatch.setattr(platformdirs, "PlatformDirs", Unix)
    assert cache.cache_folder() == tmp_path / "x" / "borrowed-strength"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(platformdirs, "PlatformDirs", MacOS)
    assert cache.cache_folder() == Path.home() / "Library" / "Caches" / "borrowed-strength"


def test_without_a_home_folder(monkeypatch):
    def homeless(name):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("BORROWED_CACHE")
    monkeypatch.setattr("pooch.os_cache", homeless)
    with pytest.raises(DataError, match=r"no home folder is known here .*: name a folder of yours in BORROWED_CACHE"):
        cache.cache_folder()


@pytest.mark.parametrize("folder", ["file", "file/below", "~nobody-of-that-name/x", "/proc/cache"])
def test_a_cache_that_cannot_be(server, tmp_path, monkeypatch, folder):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BORROWED_CACHE", folder if folder[0] in "~/" else str(tmp_path / folder))
    server.put("/x.bin", Answer(BODY))
    with pytest.raises(DataError, match="name a folder of yours in BORROWED_CACHE"):
        official(pinned(server, "/x.bin"))


def test_a_relative_cache_stays_where_it_is(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BORROWED_CACHE", f"kept-{tmp_path.name}")
    server.put("/rel.bin", Answer(BODY))
    path = official(pinned(server, "/rel.bin"))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert path.is_relative_to(tmp_path / f"kept-{tmp_path.name}") and official(pinned(server, "/rel.bin")) == path


# Mirrors


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    folder = tmp_path / "mirror"
    (folder / "deep" / "er").mkdir(parents=True)
    monkeypatch.setenv("BORROWED_MIRROR", str(folder))
    monkeypatch.setenv("BORROWED_OFFLINE", "1")
    return folder


def test_a_mirror_is_searched_by_name_and_hash(mirror):
    (mirror / "m.bin").write_bytes(OTHER)
    (mirror / "deep" / "er" / "m.bin").write_bytes(BODY)
    file = File("m.bin", sha(BODY), len(BODY), urls=(DEAD,))
    assert official(file) == mirror / "deep" / "er" / "m.bin" and download.find(file, "official").state == "mirror"
    with pytest.raises(Unavailable, match=r"a file m\.bin in the mirror is not the right one: its sha256 differs"):
        official(File("m.bin", sha(b"third"), None, urls=file.urls))
    with pytest.raises(Unavailable, match="its size differs"):
        official(File("m.bin", sha(b"third"), 5, urls=file.urls))


def test_a_wrong_file_in_the_mirror_is_told_where_no_address_helps(mirror, monkeypatch, server):
    monkeypatch.delenv("BORROWED_OFFLINE")
    (mirror / "m.bin").write_bytes(OTHER)
    with pytest.raises(Unavailable, match=r"^a file m\.bin in the mirror is not the right one: its sha.*; m.* 404"):
        official(pinned(server, "/m.bin"))


def test_an_unpinned_file_of_a_mirror(mirror):
    file = File("u.csv.gz", urls=(DEAD,))
    whole = archive("csv.gz")
    (mirror / "u.csv.gz").write_bytes(whole[:-20])
    with pytest.raises(Unavailable, match="cut short"):
        official(file)
    (mirror / "u.csv.gz").write_bytes(whole)
    assert official(file) == mirror / "u.csv.gz" and cache.known_sha256(file) == sha(whole)
    (mirror / "u.csv.gz").write_bytes(gzip.compress(b"another"))
    with pytest.raises(Unavailable, match="its sha256 differs"):
        official(file)


def test_a_sha256_that_cannot_be_written_down(mirror, monkeypatch):
    """Nothing would hold the next copy to it, so this one is not given out."""
    (mirror / "u.csv").write_bytes(b"1")
    monkeypatch.setenv("BORROWED_CACHE", str(mirror / "u.csv" / "cache"))
    with pytest.raises(DataError, match="name a folder of yours in BORROWED_CACHE"):
        official(File("u.csv", urls=(DEAD,)))
    assert official(File("u.csv", sha(b"1"), 1, urls=(DEAD,))) == mirror / "u.csv"


def test_a_mirror_with_two_answers(mirror):
    (mirror / "u.csv").write_bytes(b"1")
    (mirror / "deep" / "u.csv").write_bytes(b"1")
    assert official(File("u.csv", urls=(DEAD,))) == mirror / "u.csv"
    (mirror / "v.csv").write_bytes(b"1")
    (mirror / "deep" / "v.csv").write_bytes(b"2")
    with pytest.raises(Unavailable, match=r"the mirror holds 2 different files v\.csv"):
        official(File("v.csv", urls=(DEAD,)))


def test_files_in_the_mirror_are_found_by_a_pattern(tmp_path, monkeypatch):
    deep = tmp_path / "one" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (deep / "labelled-a.h5ad").touch(), (tmp_path / "two" / "labelled-b.h5ad").touch(), (deep / "other.h5ad").touch()
    monkeypatch.setenv("BORROWED_MIRROR", os.pathsep.join(map(str, (tmp_path / "two", tmp_path / "one"))))
    assert cache.in_mirror("labelled-*.h5ad") == [deep / "labelled-a.h5ad", tmp_path / "two" / "labelled-b.h5ad"]
    assert cache.in_mirror("none.h5ad") == []
    monkeypatch.setenv("BORROWED_MIRROR", str(tmp_path / "three"))
    with pytest.raises(DataError, match=r"BORROWED_MIRROR names .*three, which is not a folder here"):
        cache.in_mirror("*")
    monkeypatch.setenv("BORROWED_MIRROR", "~nobody-of-that-name/x")
    with pytest.raises(DataError, match="name a folder of yours in BORROWED_MIRROR"):
        cache.in_mirror("*")
    monkeypatch.delenv("BORROWED_MIRROR")
    assert cache.in_mirror("*") == []


def test_real_files_in_a_mirror(fixtures, monkeypatch):
    folder = fixtures("official/sc_mixology_data_csv")
    monkeypatch.setenv("BORROWED_MIRROR", str(folder.parent))
    monkeypatch.setenv("BORROWED_OFFLINE", "1")
    assert official(File("sc_dropseq.count.csv.gz", urls=(DEAD,))) == folder / "sc_dropseq.count.csv.gz"


# Processes


# Copies of this process would hold locks of its server's threads, so another one makes them, when all is imported.
HELPER = """
import os, sys
import filelock, pooch, requests, tqdm
from shared.data import download
from shared.data.catalogue import File
for line in sys.stdin:
    number, cache, name, sha256, size, url = line.split()
    os.environ["BORROWED_CACHE"] = cache
    children = []
    for _ in range(int(number)):
        child = os.fork()
        if not child:
            try:
                download.get(File(name, sha256, int(size), (url,)), kind="official", progress=False)
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(child)
    print(*children, flush=True)
    print(*(os.waitpid(child, 0)[1] for child in children), flush=True)
"""


@pytest.fixture(scope="module")
def processes(root):
    """A function that starts so many processes, all to fetch one file: their numbers, and how to wait for them."""
    if not hasattr(os, "fork"):
        pytest.skip("this system makes no copies of a process")
    env = {k: v for k, v in os.environ.items() if not k.startswith("BORROWED_")} | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HELPER], cwd=root, env=env, **pipes) as helper:

        def start(number, file, cache):
            print(number, cache, file.name, file.sha256, file.size, *file.urls, file=helper.stdin, flush=True)
            return list(map(int, helper.stdout.readline().split())), lambda: helper.stdout.readline().split()

        yield start
        helper.stdin.close()


def test_two_processes_fetch_once(server, tmp_path, processes):
    server.put("/pair.bin", Answer(BODY[:500], drip=0.0002), Answer(status=404))
    file = pinned(server, "/pair.bin", BODY[:500])
    assert processes(2, file, tmp_path / "cache")[1]() == ["0", "0"]
    assert len(server.headers("/pair.bin", "range")) == 1 and left(tmp_path) == ["pair.bin"]


@pytest.mark.parametrize("seed", [pytest.param(s, marks=[pytest.mark.nightly] if s > 2 else []) for s in range(20)])
def test_a_process_killed_at_any_moment(server, tmp_path, processes, seed):
    """No half file under the final name; the next call goes on, and leaves nothing but the file."""
    path, body = f"/killed{seed}.bin", BODY[:1500]
    server.put(path, Answer(body, drip=2e-5))
    file = pinned(server, path, body)
    (child,), wait = processes(1, file, tmp_path / "cache")
    time.sleep(random.Random(seed).uniform(0, 0.15))
    with contextlib.suppress(ProcessLookupError):  # it was quick
        os.kill(child, signal.SIGKILL)
    wait()
    final = cache.place(file)
    assert not final.exists() or final.read_bytes() == body
    assert official(file).read_bytes() == body  # the lock went with the process
    assert left(tmp_path) == [final.name]


@pytest.mark.parametrize("body", [BODY, OTHER, b""])
@pytest.mark.parametrize("left_over", ["tmpab_c12xy", ".draft.bin.json.9-9", ".draft.bin.part.json.9-9"])
def test_a_draft_that_a_killed_process_left_is_swept_away(server, tmp_path, body, left_over):
    server.put("/draft.bin", Answer(BODY))
    file = pinned(server, "/draft.bin")
    place = cache.place(file)
    place.parent.mkdir(parents=True)
    (place.parent / left_over).write_bytes(body)
    cache.write_note(Path(f"{place}.part"), {"mark": '"v1"'})
    assert official(file).read_bytes() == BODY and left(tmp_path) == ["draft.bin"]


def test_a_note_that_is_no_note(tmp_path):
    for text in ("", "[1]", "{", '"x"', "\0"):
        (tmp_path / "a.json").write_text(text)
        assert cache.read_note(tmp_path / "a") == {}
    cache.write_note(tmp_path / "a", {"b": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": 1}


# Whatever happens

WHOLE = gzip.compress(bytes(range(256)) * 8, mtime=0) + gzip.compress(os.urandom(2000), mtime=0)
SECOND = gzip.compress(os.urandom(2500), mtime=0)
cuts = st.integers(0, len(WHOLE) - 1)
good = st.builds(Answer, st.just(WHOLE), ranges=st.booleans(), etag=st.sampled_from(['"v1"', 'W/"v1"', None]))
bad = st.one_of(
    st.builds(Answer, st.just(WHOLE), cut=cuts, etag=st.sampled_from(['"v1"', None]), length=st.booleans()),
    st.builds(Answer, st.just(SECOND), cut=st.none() | cuts, etag=st.sampled_from(['"v2"', '"v1"', None])),
    st.builds(Answer, st.just(SECOND), etag=st.just('"v2"'), heeds_if_range=st.just(False)),
    st.builds(lambda n: Answer(WHOLE[:n], etag='"short"'), cuts),
    st.builds(Answer, st.just(WHOLE), span=st.sampled_from(["bytes 0-9/10", "nonsense", "bytes 5-"])),
    st.sampled_from([Answer(status=s) for s in (302, 403, 404, 410, 416, 500, 503)]),
    st.sampled_from([Answer(PAGE, kind="text/html"), Answer(PAGE), Answer(b""), Answer(WHOLE + b"more")]),
)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    calls=st.lists(st.tuples(st.lists(bad | good, min_size=1, max_size=4), st.booleans()), min_size=1, max_size=4),
    pin=st.booleans(),
)
def test_the_right_file_or_none(server, tmp_path_factory, calls, pin):
    """Under any sequence of failures; an unpinned file may be either whole version, but then stays that one."""
    folder = tmp_path_factory.mktemp("any")
    file = File("f.csv.gz", sha(WHOLE) if pin else None, None, urls=(server.url("/any.gz"), server.url("/any2.gz")))
    allowed = {WHOLE} if pin else {WHOLE, SECOND}
    os.environ["BORROWED_CACHE"] = str(folder)  # the fixture that sets it also puts it back
    final = cache.place(file)
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
