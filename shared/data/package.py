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
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit
from urllib.request import url2pathname

from shared.data.catalogue import File
from shared.data.errors import DataError, Unavailable
from shared.data.store import CHUNK
from shared.data.transfer import Refused, ask, host

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
    found, said, other = [], [], False
    for url in (*pages, *settings.get("find-links", "").split()):
        try:
            links = _links(url)
        except Refused as e:
            said.append(f"{host(url)}: {e}")
            continue
        for name, address, sha256 in links:
            if name == file.name:
                if sha256 in (None, file.sha256):
                    found.append(address)
                other = other or sha256 not in (None, file.sha256)
    if found:
        return list(dict.fromkeys(found))
    if other:
        raise DataError(f"the package index has a {file.name} with another sha256: it is not the file of the catalogue")
    why = "; ".join(said) or "no index is set"
    cure = "check the network and 'pip config list', or name a folder that holds it in BORROWED_MIRROR"
    raise Unavailable(f"{file.name} of {file.package} is not offered by the package index ({why}): {cure}")


def options() -> dict:
    """What pip is told of certificates and proxies, as keyword arguments of ``requests``."""
    settings, said = configuration(), {}
    if settings.get("cert"):
        said["verify"] = settings["cert"]
    if settings.get("proxy"):
        said["proxies"] = {"http": settings["proxy"], "https": settings["proxy"]}
    return said


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
    for line in said.splitlines():
        found = re.fullmatch(r"(global|download|:env:)\.([\w-]+)=(.*)", line.strip())
        if found:
            section, name, value = found.groups()
            try:
                settings[section][name] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                settings[section][name] = value
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
    for way in ways:
        try:
            done = subprocess.run(
                [*way, *words],
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=PIP_SECONDS,
                env=os.environ | {"PYTHONIOENCODING": "utf-8", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **env},
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return done.stdout
    raise Unavailable("pip is missing, and it knows the package index: run 'python -m ensurepip' and try again")


def _indexes(settings) -> list[str]:
    if settings.get("no-index", "").lower() not in ("", "0", "no", "false", "off"):
        return []
    return [u for u in (settings.get("index-url", ""), *settings.get("extra-index-url", "").split()) if u]


class _Page(HTMLParser):
    """The links of an index page: (text, address) pairs, and the address they are relative to."""

    def __init__(self):
        super().__init__()
        self.base, self.links, self.href, self.text = None, [], None, ""

    def handle_starttag(self, tag, attrs):
        href = dict(attrs).get("href")
        if tag == "base" and href:
            self.base = href
        if tag == "a" and href:
            self.href, self.text = href, ""

    def handle_data(self, data):
        self.text += data

    def handle_endtag(self, tag):
        if tag == "a" and self.href:
            self.links.append((self.text.strip(), self.href))
            self.href = None


def _links(url: str) -> list[tuple[str, str, str | None]]:
    """(file name, address, sha256 or None) of all that a page or a folder offers."""
    if "://" not in url or url.startswith("file:"):
        path = Path(url2pathname(urlsplit(url).path) if "://" in url else url).expanduser().absolute()
        page = path / "index.html" if path.is_dir() else path
        if not page.is_file():
            return _folder(path)
        return _parsed(page.read_bytes(), "text/html", page.as_uri())
    with ask(url, {"Accept": ACCEPT, "Accept-Encoding": "gzip"}, **options()) as response:
        body = b""
        for chunk in _chunks(response):
            body += chunk
            if len(body) > LARGEST_PAGE:
                raise Refused("its page is too long for a list of files")
        links = _parsed(body, response.headers.get("Content-Type", ""), response.url)
    return [(name, _with_user(address, url), sha256) for name, address, sha256 in links]


def _chunks(response):
    from requests.exceptions import RequestException

    try:
        yield from response.iter_content(CHUNK)
    except (RequestException, OSError):
        raise Refused("the connection broke") from None


def _folder(path: Path):
    if not path.is_dir():
        raise Refused("there is no such folder")
    return [(p.name, p.absolute().as_uri(), None) for p in sorted(path.iterdir()) if p.is_file()]


def _parsed(body: bytes, kind: str, url: str):
    """Links of one page, HTML (PEP 503) or JSON (PEP 691)."""
    if "json" in kind:
        try:
            files = json.loads(body)["files"]
            return [(f["filename"], urljoin(url, f["url"]), f.get("hashes", {}).get("sha256")) for f in files]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Refused("its answer is no list of files") from None
    page = _Page()
    page.feed(body.decode("utf-8", "replace"))
    links = []
    for text, href in page.links:
        address, fragment = urldefrag(urljoin(urljoin(url, page.base or ""), href))
        mark = re.search(r"sha256=([0-9a-f]{64})", fragment)
        name = unquote(urlsplit(address).path.rpartition("/")[2]) or text
        links.append((name, address, mark[1] if mark else None))
    return links


def _with_user(address: str, index: str) -> str:
    """`address` with the index's user and password where it lies on the same host, as pip does it."""
    of, to = urlsplit(index), urlsplit(address)
    user = of.netloc.rpartition("@")[0]
    same = (of.scheme, of.hostname, of.port) == (to.scheme, to.hostname, to.port)
    if not user or "@" in to.netloc or not same:
        return address
    return urlunsplit(to._replace(netloc=f"{user}@{to.netloc}"))
