"""Where a published package's file lies, asked of the index that pip is set up to use; nothing is installed or run.

``pip download`` would run a source archive's ``setup.py``; the index's pages, lists of links (PEP 503), are read here.
"""

import html
import os
import re
import subprocess
import sys
from contextlib import suppress
from functools import cache
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

from shared.data.catalogue import File
from shared.data.download import DownloadError, host, request
from shared.data.errors import DataError, Unavailable

CURE = "check the network and 'pip config list', or name a folder that holds it in BORROWED_MIRROR"
LARGEST_PAGE = 64 << 20  # bytes
# A link with its address, whatever stands in the quotes of its other attributes.
LINK = re.compile(r"""<a\b(?:"[^"]*"|'[^']*'|[^>"'])*?\shref\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)


def addresses(file: File) -> list[str]:
    """Where the index offers a package's file, in the order pip would ask; they may carry a password, so print none.

    :class:`Unavailable` if no index has the file or answers, :class:`DataError` if one has it with another sha256.
    """
    offered, said = [], []
    project = re.sub(r"[-_.]+", "-", (file.package or "").partition("==")[0]).lower()
    for index in indexes():
        url = f"{index.rstrip('/')}/{project}/"
        try:
            offered += [(address, sha256) for name, address, sha256 in _links(url) if name == file.name]
        except DownloadError as e:
            said.append(f"{host(url)}: {e}")
    found = dict.fromkeys(address for address, sha256 in offered if sha256 in (None, file.sha256))
    if offered and not found:
        raise DataError(f"the package index has a {file.name} with another sha256: it is not the file of the catalogue")
    if not found:
        why = "; ".join(said) or "it has no such file"
        raise Unavailable(f"{file.name} of {file.package} is not offered by the package index ({why}): {CURE}")
    return list(found)


def indexes() -> list[str]:
    """The addresses of the indexes that pip is set up to use; :class:`Unavailable` without pip."""
    settings: dict[str, str] = {}
    # What is said of downloads is stronger than what is said of all commands, and the environment stronger than both.
    for part in ("global", "download"):
        found = re.findall(rf"^\s*{part}\.([\w-]+)=(['\"]?)(.*)\2\s*$", _pip("config", "list"), re.MULTILINE)
        settings |= {name: value.replace("\\n", " ") for name, _, value in found}
    settings |= {k[4:].lower().replace("_", "-"): v for k, v in os.environ.items() if k.startswith("PIP_") and v}
    if settings.get("no-index", "").lower() not in ("", "0", "no", "false", "off"):
        return []
    if not settings.get("index-url"):  # pip asks the one that its help names
        found = re.search(r"--index-url\b[^()]*\(default:?\s+(\S+?)\)", " ".join(_pip("download", "--help").split()))
        if not found:
            raise Unavailable("pip does not say which index it uses: run 'python -m ensurepip', or set PIP_INDEX_URL")
        settings["index-url"] = found[1]
    return f"{settings['index-url']} {settings.get('extra-index-url', '')}".split()


@cache
def _pip(*words: str) -> str:
    """What pip prints, nothing without pip; its errors may hold a password and are not passed on."""
    words = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    env = os.environ | {"COLUMNS": "400"}  # wide, so that the help does not break the address over two lines
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(words, check=True, capture_output=True, encoding="utf-8", timeout=60, env=env).stdout
    return ""


def _links(url: str) -> list[tuple[str, str, str | None]]:
    """(file name, address, sha256 or None) of all that a project's page offers."""
    with request(url, {"Accept": "text/html", "Accept-Encoding": "gzip"}) as response:
        try:
            body, top, links = response.raw.read(LARGEST_PAGE, decode_content=True), response.url, []
        except Exception:  # of urllib3, or of gzip
            raise DownloadError("the connection broke") from None
    for href in LINK.findall(body.decode("utf-8", "replace")):
        address, fragment = urldefrag(urljoin(top, html.unescape(href)))
        mark = re.search(r"sha256=([0-9a-f]{64})", fragment)
        # The name as pip takes it: the last part of the address, which the text of the link repeats (PEP 503).
        name = unquote(urlsplit(address).path.rpartition("/")[2])
        links.append((name, _with_user(address, url), mark and mark[1]))
    return links


def _with_user(address: str, index: str) -> str:
    """`address` with the index's user and password where it lies on the same host, as pip does it."""
    of, to = urlsplit(index), urlsplit(address)
    user = of.netloc.rpartition("@")[0]
    if not user or "@" in to.netloc or (of.scheme, of.hostname, of.port) != (to.scheme, to.hostname, to.port):
        return address
    return urlunsplit(to._replace(netloc=f"{user}@{to.netloc}"))
