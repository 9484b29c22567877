"""Where a published package's file lies, asked of the index that pip is set up to use; nothing is installed or run.

``pip download`` would run the ``setup.py`` of a source archive to learn its name, so only pip's configuration is asked
for, and the index is read here: its pages are lists of links, as HTML or JSON.
"""

from __future__ import annotations

import ast
import html
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from itertools import islice
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit
from urllib.request import url2pathname

from shared.data.catalogue import File
from shared.data.download import DownloadError, ask, host
from shared.data.errors import DataError, Unavailable
from shared.data.store import CHUNK

LARGEST_PAGE = 64 << 20  # bytes
PIP_SECONDS = 60
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
# A tag with an address, whatever stands in the quotes of its other attributes.
LINK = re.compile(r"""<(a|base)\b(?:"[^"]*"|'[^']*'|[^>"'])*?\shref\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)


def addresses(file: File) -> tuple[list[str], dict]:
    """Where the index offers a package's file, in the order pip would ask, and how to ask there.

    Parameters
    ----------
    file : File
        ``package`` is ``"name==version"`` and ``name`` the file's whole name in the index.

    Returns
    -------
    list of str
        Never empty. They may carry the index's user and password: not for printing or keeping.
    dict
        Keyword arguments of ``requests``: pip's certificates and proxies.

    Raises
    ------
    Unavailable
        If pip is missing, no index answers, or none has the file.
    DataError
        If an index has a file of that name with another sha256.
    """
    settings = configuration()
    project = re.sub(r"[-_.]+", "-", (file.package or "").partition("==")[0]).lower()
    offered, said, how = [], [], options(settings)
    for url in (*(f"{index.rstrip('/')}/{project}/" for index in indexes(settings)), *_words(settings, "find-links")):
        try:
            offered += [(address, sha256) for name, address, sha256 in _links(url, how) if name == file.name]
        except DownloadError as e:
            said.append(f"{host(url)}: {e}")
    found = dict.fromkeys(address for address, sha256 in offered if sha256 in (None, file.sha256))
    if found:
        return list(found), how
    if offered:
        raise DataError(f"the package index has a {file.name} with another sha256: it is not the file of the catalogue")
    why = "; ".join(said) or "no index is set"
    cure = "check the network and 'pip config list', or name a folder that holds it in BORROWED_MIRROR"
    raise Unavailable(f"{file.name} of {file.package} is not offered by the package index ({why}): {cure}")


def configuration() -> dict[str, str]:
    """pip's settings for downloads by name, its default index among them; :class:`Unavailable` without any index."""
    found = re.findall(r"^\s*(global|download)\.([\w-]+)=(.*?)\s*$", _pip("config", "list"), re.MULTILINE)
    settings = {}
    for _, name, value in sorted(found, reverse=True):  # what is said of downloads is stronger
        settings[name] = value
        with suppress(ValueError, SyntaxError):
            settings[name] = str(ast.literal_eval(value))
    settings |= {k[4:].lower().replace("_", "-"): v for k, v in os.environ.items() if k.startswith("PIP_") and v}
    if not settings.get("index-url") and "no-index" not in settings:
        # Wide, so that the help does not break the address over two lines.
        text = " ".join(_pip("download", "--help", COLUMNS="400").split())
        default = re.search(r"--index-url\b[^()]*\(default:?\s+(\S+?)\)", text)
        if not default:
            cure = "run 'python -m ensurepip', or set PIP_INDEX_URL to your package index"
            raise Unavailable(f"pip is missing or does not say which package index it uses: {cure}")
        settings["index-url"] = default[1]
    return settings


def _pip(*words: str, **env: str) -> str:
    """What pip prints, nothing without pip. Its errors are not passed on: they may hold an address with a password."""
    env = os.environ | {"PYTHONIOENCODING": "utf-8", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **env}
    how = {"check": True, "capture_output": True, "encoding": "utf-8", "timeout": PIP_SECONDS, "env": env}
    for way in ([sys.executable, "-m", "pip"], ["pip"], ["pip3"]):
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.run([*way, *words], **how).stdout
    return ""


def options(settings) -> dict:
    """What pip is told of certificates and proxies, as keyword arguments of ``requests``."""
    proxy = settings.get("proxy")
    said = {"verify": settings.get("cert"), "proxies": proxy and {"http": proxy, "https": proxy}}
    return {name: value for name, value in said.items() if value}


def indexes(settings) -> list[str]:
    """The addresses of the indexes, none where pip is told to ask none."""
    off = settings.get("no-index", "").lower() not in ("", "0", "no", "false", "off")
    return [] if off else [*_words(settings, "index-url"), *_words(settings, "extra-index-url")]


def _words(settings, name: str) -> list[str]:
    return settings.get(name, "").split()


def _links(url: str, how: dict) -> list[tuple[str, str, str | None]]:
    """(file name, address, sha256 or None) of all that a page or a folder offers."""
    if "://" not in url or url.startswith("file:"):
        path = Path(url2pathname(urlsplit(url).path) if "://" in url else url).expanduser().absolute()
        page = path / "index.html" if path.is_dir() else path
        if page.is_file():
            return _parsed(page.read_bytes(), "text/html", page.as_uri())
        if not path.is_dir():
            raise DownloadError("there is no such folder")
        return [(p.name, p.absolute().as_uri(), None) for p in sorted(path.iterdir()) if p.is_file()]
    with ask(url, {"Accept": ACCEPT, "Accept-Encoding": "gzip"}, **how) as response:
        try:
            body = b"".join(islice(response.iter_content(CHUNK), LARGEST_PAGE // CHUNK + 1))
        except OSError:  # what requests raises is one, too
            raise DownloadError("the connection broke") from None
        if len(body) > LARGEST_PAGE:
            raise DownloadError("its page is too long for a list of files")
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
    found = [(tag.lower(), html.unescape(href)) for tag, href in LINK.findall(body.decode("utf-8", "replace"))]
    base = urljoin(url, dict(found).get("base", ""))
    links = []
    for address, fragment in (urldefrag(urljoin(base, href)) for tag, href in found if tag == "a"):
        mark = re.search(r"sha256=([0-9a-f]{64})", fragment)
        # The name as pip takes it: the last part of the address, which the text of the link repeats (PEP 503).
        links.append((unquote(urlsplit(address).path.rpartition("/")[2]), address, mark and mark[1]))
    return links


def _with_user(address: str, index: str) -> str:
    """`address` with the index's user and password where it lies on the same host, as pip does it."""
    of, to = urlsplit(index), urlsplit(address)
    user = of.netloc.rpartition("@")[0]
    if not user or "@" in to.netloc or (of.scheme, of.hostname, of.port) != (to.scheme, to.hostname, to.port):
        return address
    return urlunsplit(to._replace(netloc=f"{user}@{to.netloc}"))
