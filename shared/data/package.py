"""Where a published package's file lies, asked of the index that pip is set up to use; nothing is installed or run.

``pip download`` would run the ``setup.py`` of a source archive to learn its name, so only pip's configuration is asked
for, and the index is read here: its pages are lists of links, as HTML or JSON.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit
from urllib.request import url2pathname

from shared.data.catalogue import File
from shared.data.errors import DataError, Unavailable
from shared.data.store import CHUNK
from shared.data.transfer import DownloadError, ask, host

LARGEST_PAGE = 64 << 20  # bytes
PIP_SECONDS = 60
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


def addresses(file: File) -> list[str]:
    """Where the index offers a package's file, in the order pip would ask.

    Parameters
    ----------
    file : File
        ``package`` is ``"name==version"`` and ``name`` the file's whole name in the index.

    Returns
    -------
    list of str
        Never empty. They may carry the index's user and password: not for printing or keeping.

    Raises
    ------
    Unavailable
        If pip is missing, no index answers, or none has the file.
    DataError
        If an index has a file of that name with another sha256.
    """
    project = re.sub(r"[-_.]+", "-", (file.package or "").partition("==")[0]).lower()
    settings = configuration()
    pages = [f"{url.rstrip('/')}/{project}/" for url in _indexes(settings)]
    offered, said = [], []
    for url in (*pages, *settings.get("find-links", "").split()):
        try:
            offered += [(address, sha256) for name, address, sha256 in _links(url) if name == file.name]
        except DownloadError as e:
            said.append(f"{host(url)}: {e}")
    found = dict.fromkeys(address for address, sha256 in offered if sha256 in (None, file.sha256))
    if found:
        return list(found)
    if offered:
        raise DataError(f"the package index has a {file.name} with another sha256: it is not the file of the catalogue")
    why = "; ".join(said) or "no index is set"
    cure = "check the network and 'pip config list', or name a folder that holds it in BORROWED_MIRROR"
    raise Unavailable(f"{file.name} of {file.package} is not offered by the package index ({why}): {cure}")


def options() -> dict:
    """What pip is told of certificates and proxies, as keyword arguments of ``requests``."""
    settings = configuration()
    proxy = settings.get("proxy")
    said = {"verify": settings.get("cert"), "proxies": proxy and {"http": proxy, "https": proxy}}
    return {name: value for name, value in said.items() if value}


def configuration() -> dict[str, str]:
    """pip's settings for downloads by name, its default index among them."""
    marks = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("PIP_")))
    return dict(_configuration(marks))


@cache
def _configuration(_marks) -> dict[str, str]:
    settings: dict[str, dict[str, str]] = {"global": {}, "download": {}, ":env:": {}}
    try:
        said = _pip("config", "list")
    except Unavailable:  # an environment may be made without pip, and still say where packages come from
        said = "\n".join(f":env:.{k[4:].lower().replace('_', '-')}={v!r}" for k, v in _marks)
    for section, name, value in re.findall(r"^\s*(global|download|:env:)\.([\w-]+)=(.*?)\s*$", said, re.MULTILINE):
        settings[section][name] = value
        with suppress(ValueError, SyntaxError):
            settings[section][name] = str(ast.literal_eval(value))
    merged = settings["global"] | settings["download"] | settings[":env:"]  # each stronger than the one before
    if not merged.get("index-url") and "no-index" not in merged:
        # Wide, so that the help does not break the address over two lines.
        text = " ".join(_pip("download", "--help", COLUMNS="400").split())
        found = re.search(r"--index-url\b[^()]*\(default:?\s+(\S+?)\)", text)
        if not found:
            raise Unavailable("pip does not say which index it uses: set PIP_INDEX_URL to your package index")
        merged["index-url"] = found[1]
    return merged


def _pip(*words: str, **env: str) -> str:
    """What pip prints. Its errors are not passed on: they may hold an address with a password."""
    ways = [[sys.executable, "-m", "pip"]] + [[p] for p in (shutil.which("pip"), shutil.which("pip3")) if p]
    env = os.environ | {"PYTHONIOENCODING": "utf-8", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **env}
    how = {"check": True, "capture_output": True, "encoding": "utf-8", "timeout": PIP_SECONDS, "env": env}
    for way in ways:
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.run([*way, *words], **how).stdout
    raise Unavailable("pip is missing, and it knows the package index: run 'python -m ensurepip' and try again")


def _indexes(settings) -> list[str]:
    if settings.get("no-index", "").lower() not in ("", "0", "no", "false", "off"):
        return []
    return [u for u in (settings.get("index-url", ""), *settings.get("extra-index-url", "").split()) if u]


class _Page(HTMLParser):
    """The links of an index page, and the address they are relative to."""

    def __init__(self):
        super().__init__()
        self.found = {"base": [""], "a": []}

    def handle_starttag(self, tag, attrs):
        href = dict(attrs).get("href")
        if href and tag in self.found:
            self.found[tag].append(href)


def _links(url: str) -> list[tuple[str, str, str | None]]:
    """(file name, address, sha256 or None) of all that a page or a folder offers."""
    if "://" not in url or url.startswith("file:"):
        path = Path(url2pathname(urlsplit(url).path) if "://" in url else url).expanduser().absolute()
        page = path / "index.html" if path.is_dir() else path
        if page.is_file():
            return _parsed(page.read_bytes(), "text/html", page.as_uri())
        if not path.is_dir():
            raise DownloadError("there is no such folder")
        return [(p.name, p.absolute().as_uri(), None) for p in sorted(path.iterdir()) if p.is_file()]
    with ask(url, {"Accept": ACCEPT, "Accept-Encoding": "gzip"}, **options()) as response:
        body = b""
        try:
            for chunk in response.iter_content(CHUNK):
                body += chunk
                if len(body) > LARGEST_PAGE:
                    raise DownloadError("its page is too long for a list of files")
        except OSError:  # what requests raises is one, too
            raise DownloadError("the connection broke") from None
        links = _parsed(body, response.headers.get("Content-Type", ""), response.url)
    return [(name, _with_user(address, url), sha256) for name, address, sha256 in links]


def _parsed(body: bytes, kind: str, url: str):
    """Links of one page, HTML (PEP 503) or JSON (PEP 691)."""
    if "json" in kind:
        try:
            files = json.loads(body)["files"]
            return [(f["filename"], urljoin(url, f["url"]), f.get("hashes", {}).get("sha256")) for f in files]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DownloadError("its answer is no list of files") from None
    page = _Page()
    page.feed(body.decode("utf-8", "replace"))
    links = []
    for href in page.found["a"]:
        address, fragment = urldefrag(urljoin(urljoin(url, page.found["base"][-1]), href))
        mark = re.search(r"sha256=([0-9a-f]{64})", fragment)
        # The name as pip takes it: the last part of the address, which the text of the link repeats (PEP 503).
        links.append((unquote(urlsplit(address).path.rpartition("/")[2]), address, mark and mark[1]))
    return links


def _with_user(address: str, index: str) -> str:
    """`address` with the index's user and password where it lies on the same host, as pip does it."""
    of, to = urlsplit(index), urlsplit(address)
    user = of.netloc.rpartition("@")[0]
    same = (of.scheme, of.hostname, of.port) == (to.scheme, to.hostname, to.port)
    if not user or "@" in to.netloc or not same:
        return address
    return urlunsplit(to._replace(netloc=f"{user}@{to.netloc}"))
