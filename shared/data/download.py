"""Files of the catalogue: from the checkout, the cache, a local mirror or the network, and checked wherever they lie.

A file has its final name only when it is whole and right. pooch sees to that: it compares the sha256 of a draft and
moves it. The downloader that it calls is ours, because pooch cannot go on where a broken download stopped.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import threading
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from shared.data import store
from shared.data.catalogue import File, home
from shared.data.errors import DataError, Unavailable

TRIES = 5  # in a row that bring less than a chunk
WAIT = 0.5  # seconds before the second try; doubled before each one after it
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for
CONNECT = 15.0  # seconds until a server answers at all
STALL = 30.0  # seconds without a byte
SLOWEST = 1024  # bytes a second, over two times STALL
CONNECTIONS = 4
SPARE = 16 << 20  # bytes that a download leaves free
ROOM = "make room, or name a folder on another disk in BORROWED_CACHE"
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}

_slots = threading.BoundedSemaphore(CONNECTIONS)


class DownloadError(Exception):
    """This address does not give the file."""


class _Damaged(DownloadError, ValueError):
    """It gives something, which is not the file."""


class _Broken(Exception):
    """The download stopped midway; the same address may go on."""


class Found(NamedTuple):
    """Where a file lies (bundled, cached, mirror, damaged or absent), and what is wrong, in words."""

    state: str
    path: Path | None = None
    said: str = ""


def look(file: File, kind: str) -> Found:
    """Where a file of a route lies now, its sha256 checked; the network is not asked."""
    if kind == "bundled":
        path = home() / file.name
        if path.is_file() and store.sha256(path) == file.sha256:
            return Found("bundled", path)
        what = "is not the file the catalogue describes (its sha256 differs)" if path.is_file() else "is missing"
        return Found("damaged", said=f"{file.name} {what}: restore it with 'git checkout data', or reinstall")
    path = store.place(file)
    cached = store.problem(path, file) if path.is_file() else "it is absent"
    if not cached:
        store.remember(path, file)
        return Found("cached", path)
    # Those deep below the top first, so that of two that are the same the one nearest to it is taken.
    copies = sorted(store.in_mirror(glob.escape(file.name)), key=lambda p: -len(p.parts))
    wrong = {p: store.problem(p, file) for p in copies}
    right = {store.sha256(p): p for p in copies if not wrong[p]}
    if len(right) == 1:
        store.remember(*right.values(), file)
        return Found("mirror", *right.values())
    if path.is_file():
        return Found("damaged", said=f"the cached copy of {file.name} is damaged: {cached}")
    if right:
        return Found("absent", said=f"the mirror holds {len(right)} different files {file.name}: keep the right one")
    first = f"a file {file.name} in the mirror is not the right one: {wrong[copies[-1]]}" if wrong else ""
    return Found("absent", said=first)


def get(file: File, *, kind: str, progress: bool = True, stop: threading.Event | None = None) -> Path:
    """The path of a file, for reading only, its sha256 checked; fetched where it is not here.

    Parameters
    ----------
    file : File
        Of the catalogue.
    kind : str
        ``"bundled"``, ``"package"`` or ``"official"``.
    progress : bool
        Draw a progress bar, where there is a terminal to draw it on.
    stop : Event, optional
        Once set, a download ends; what has arrived is kept.

    Raises
    ------
    Unavailable
        If the file is not here and no address gives it now.
    DataError
        If what is here or what was sent is not the file, or the disk is full.
    """
    found = look(file, kind)
    if not found.path and kind != "bundled" and not store.offline():
        with store.locked(store.place(file)):
            found = look(file, kind)  # another process may have fetched it while this one waited
            try:
                return found.path or _Download(file, progress, stop or threading.Event()).run(kind)
            except Unavailable as e:
                if not found.said:
                    raise
                raise (DataError if found.state == "damaged" else Unavailable)(f"{found.said}; {e}") from e
    if found.path:
        return found.path
    if kind == "bundled":
        raise DataError(found.said)
    where = found.said or f"{file.name} is neither in the cache nor in a mirror"
    cure = "unset it, or name a folder that holds the file in BORROWED_MIRROR"
    error = DataError if found.state == "damaged" else Unavailable
    raise error(f"{where}, and BORROWED_OFFLINE forbids to fetch it: {cure}")


def get_all(files, *, kind: str, progress: bool = True) -> list[Path]:
    """:func:`get` for several files of one route, at once; Ctrl-C stops every download, the next call goes on."""
    files, stop = list(files), threading.Event()
    results: list = [None] * len(files)

    def work(i, file):
        try:
            results[i] = get(file, kind=kind, progress=progress, stop=stop)
        except Exception as e:
            results[i] = e

    # Daemons, because a thread that waits for a silent server must not keep an interrupted program alive.
    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(files)]
    try:
        for t in threads:
            t.start()
        for t in threads:
            while t.is_alive():
                t.join(0.2)
    except BaseException:
        stop.set()
        raise
    wrong = [r for r in results if isinstance(r, Exception)]
    for e in sorted(wrong, key=lambda e: isinstance(e, Unavailable)):  # damage is the worse news
        raise e
    return results


def without_user(url: str) -> str:
    """An address without user and password."""
    return re.sub(r"(?<=//)[^/?#]*@", "", url)


def host(url: str) -> str:
    """The host of an address, for messages: without user, password and what follows."""
    return re.match(r"(?:[^/]*//)?(\[.*?\]|[^/:?#]*)", without_user(url))[1] or "this machine"


@cache
def _session():
    """One session for the process: connections are kept open, and a busy server is asked again after a while."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    class Patient(Retry):
        def get_retry_after(self, response):
            return min(super().get_retry_after(response) or 0, LONGEST_WAIT)

    busy = {"status_forcelist": (408, 429, 500, 502, 503, 504), "allowed_methods": ("GET",), "raise_on_status": False}
    retry = Patient(total=TRIES - 1, connect=2, read=1, backoff_factor=WAIT, **busy)
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=CONNECTIONS))
    # Bytes as they lie on the server: a .gz that is unpacked on the way has another sha256, and cannot be resumed.
    session.headers.update({"User-Agent": "borrowed-strength (teaching material)", "Accept-Encoding": "identity"})
    return session


def ask(url: str, headers: dict | None = None, **options):
    """A response whose status is good, its body unread.

    Raises
    ------
    DownloadError
        Where there is none. The words never hold the address: it may carry a password.
    """
    from requests import exceptions as r

    try:
        response = _session().get(url, headers=headers, stream=True, timeout=(CONNECT, STALL), **options)
    except (ValueError, OSError) as e:  # what requests raises is an OSError, too
        late = f"no answer in {STALL:g} s"
        words = {  # the first kind that it is
            r.SSLError: "its certificate cannot be checked: is a proxy in the way, or the clock wrong?",
            r.ProxyError: "the proxy refuses: check HTTPS_PROXY",
            r.Timeout: late,
            r.ConnectionError: late if "timed out" in str(e) else "it cannot be reached",
            r.TooManyRedirects: "it sends from one address to the next without end",
            Exception: f"the address cannot be used ({type(e).__name__})",
        }
        raise DownloadError(next(said for kind, said in words.items() if isinstance(e, kind))) from None
    fine = response.status_code in (200, 206, 416)
    if fine and not (url.startswith("https:") and response.url.startswith("http:")):
        return response
    response.close()
    answer = f"it answers {response.status_code} {response.reason or ''}".strip()
    raise DownloadError("it sends on to an address that is not encrypted" if fine else answer)


def _chunks(response, decode: bool):
    """The body as it arrives; :class:`_Broken` where the server falls silent, drips or hangs up."""
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    read = getattr(response.raw, "read1", response.raw.read)  # older versions of urllib3 wait until a chunk is full
    since, got = time.monotonic(), 0
    while True:
        try:
            chunk = read(store.CHUNK, decode_content=decode)
        except ReadTimeoutError:
            raise _Broken(f"it sent nothing for {STALL:g} s") from None
        except (HTTPError, OSError):
            raise _Broken("the connection broke") from None
        if not chunk:
            return
        yield chunk
        got += len(chunk)
        if time.monotonic() - since > 2 * STALL:
            if got < SLOWEST * 2 * STALL:
                raise _Broken(f"it sent only {got:,} bytes in {2 * STALL:g} s")
            since, got = time.monotonic(), 0


class _Download:
    """One file on its way into the cache, its lock held by the caller; called by pooch, it is the downloader.

    Beside the final path lie ``.part``, what has arrived, and ``.part.json``: the address it came from, what tells this
    version of the file from another (ETag or Last-Modified), and the size it will have.
    """

    def __init__(self, file: File, progress: bool, stop: threading.Event):
        self.file, self.progress, self.stop, self.options = file, progress, stop, {}
        self.path, self.expected = store.place(file), store.known_sha256(file)
        self.part, self.suffix = Path(f"{self.path}.part"), Path(file.name).suffix.lower()

    def run(self, kind: str) -> Path:
        """Try every address; the final path."""
        urls, errors = self.file.urls, {}
        if kind == "package":
            from shared.data import package

            urls, self.options = package.addresses(self.file)
        for url in urls:
            try:
                return self._local(url) if url.startswith("file:") else self._from(url)
            except DownloadError as e:
                errors[url] = e
            except OSError as e:  # of the disk: what the network raises has become a DownloadError
                if e.errno in FULL:
                    self._drop()
                what = "the disk is full" if e.errno in FULL else e.strerror or e
                folder = store.cache_folder()
                raise DataError(f"{self.file.name} cannot be written to {folder}: {what}; {ROOM}") from e
        damaged = any(isinstance(e, _Damaged) for e in errors.values())
        cure = "try again later, or name a folder that holds it in BORROWED_MIRROR"
        if not self.file.sha256 and self.expected and damaged:
            cure = f"if the source has a new version that you want, remove {self.path.parent} and try again"
        said = "; ".join(f"{host(url)}: {e}" for url, e in errors.items()) or "no address is known"
        raise (DataError if damaged else Unavailable)(f"{self.file.name} cannot be fetched: {said}; {cure}")

    def _local(self, url: str) -> Path:
        """A file that an index on this machine points to is used where it lies."""
        path = Path(url2pathname(urlsplit(url).path))
        wrong = store.problem(path, self.file)
        if wrong:
            raise (_Damaged if path.is_file() else DownloadError)(wrong)
        return path

    def _from(self, url: str) -> Path:
        """Fetch from one address; what turns out wrong after a break is tried once more from its start."""
        pooch = store.quiet_pooch()
        for draft in self.path.parent.glob("tmp" + 8 * "[a-z0-9_]"):  # pooch's, left by a process that was killed
            if draft.stat().st_size:  # an empty one would replace a part that is worth more
                os.replace(draft, self.part)
            else:
                draft.unlink()
        if not self.expected:
            self.path.unlink(missing_ok=True)  # damaged, and without a hash pooch would take it for right
        for again in (False, True):
            self.resumed = False
            try:
                pooch.retrieve(url, self.expected, self.path.name, self.path.parent, downloader=self)
                break
            except DataError:
                raise
            except ValueError as e:
                self._drop()
                if again or not self.resumed:
                    raise e if isinstance(e, _Damaged) else _Damaged("its sha256 differs") from None
        self._drop()
        store.remember(self.path, self.file, source=host(url))
        return self.path

    def __call__(self, url: str, output_file: str, _pooch) -> None:
        """Go on until the part is whole, from one break to the next, as long as each try brings something."""
        os.unlink(output_file)  # so that all that a killed process leaves is the part
        tries, most = 0, self._have(url)
        while True:
            try:
                with _slots:
                    self._request(url)
                    break
            except _Broken as e:
                have = self._have(url)
                tries = 0 if have >= most + store.CHUNK else tries + 1
                most = max(most, have)
                if tries >= TRIES:
                    raise DownloadError(str(e)) from None
            self.stop.wait(min(WAIT * 2 ** max(tries - 1, 0), LONGEST_WAIT))
        page = store.head_problem(self.part, self.file)
        wrong = page or (not self.expected and store.body_problem(self.part, self.file))
        if wrong:
            self._drop()
            raise (DownloadError if page else _Damaged)(wrong)
        os.replace(self.part, output_file)

    def _have(self, url: str) -> int:
        """Bytes of the part that a request to `url` may go on from."""
        note = store.read_note(self.part)
        # A pinned file may go on from another address: were the two not the same, its sha256 would tell.
        same = self.file.sha256 or (note.get("address") == without_user(url) and note.get("mark"))
        return self.part.stat().st_size if note and same and self.part.is_file() else 0

    def _request(self, url: str) -> None:
        """One request, written to the part as it arrives."""
        from tqdm import tqdm

        self._stopped()
        have, note, address = self._have(url), store.read_note(self.part), without_user(url)
        self.resumed = self.resumed or have > 0
        if have and have == note.get("total"):
            return  # whole already: a process was killed between the last byte and the check
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and note.get("mark") and note.get("address") == address:
            headers["If-Range"] = note["mark"]
        with ask(url, headers, **self.options) as response:
            said = response.headers
            if "html" in said.get("Content-Type", "").lower() and self.suffix not in store.WEB_PAGES:
                raise DownloadError("it sends a web page (HTML) and no data: a login or an error, perhaps")
            etag = said.get("ETag", "W/")
            mark = said.get("Last-Modified") if etag.startswith("W/") else etag  # a weak one promises too little
            if response.status_code == 200:
                have = 0
            else:
                other = note.get("address") == address and note.get("mark") != mark
                if not have or other or not said.get("Content-Range", "").startswith(f"bytes {have}-"):
                    self._drop()
                    raise _Broken("it cannot go on from a part, or has another version of the file")
            # True where a server packs the bytes for the way although it was asked not to.
            decode = said.get("Content-Encoding", "identity") not in ("", "identity") and self.suffix not in store.GZIP
            length = said.get("Content-Length", "")
            total = have + int(length) if length.isdecimal() and not decode else None
            if self.file.sha256 and self.file.size and total not in (None, self.file.size):
                raise _Damaged(f"it has {total:,} bytes, and the catalogue says {self.file.size:,}")
            need, free = (total or self.file.size or 0) - have, shutil.disk_usage(self.path.parent).free
            if need > 0 and need + SPARE > free:
                room = f"{need / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free in {store.cache_folder()}"
                raise DataError(f"{self.file.name} needs {room}: {ROOM}")
            if not have:
                self._drop()
                if not decode:  # the part counts unpacked bytes, and the server packed ones: it starts anew
                    store.write_note(self.part, {"address": address, "mark": mark, "total": total})
            bar = {"desc": self.file.name[:32], "total": total, "initial": have, "unit": "B", "unit_scale": True}
            bar |= {"disable": None if self.progress else True, "leave": False, "miniters": 1}
            with self.part.open("ab") as out, tqdm(**bar) as shown:
                for chunk in _chunks(response, decode):
                    out.write(chunk)
                    out.flush()  # so that a killed process leaves all that arrived
                    shown.update(len(chunk))
                    self._stopped()
        done = self.part.stat().st_size
        if total not in (None, done):
            raise _Broken(f"it sent {done:,} of {total:,} bytes")

    def _stopped(self) -> None:
        if self.stop.is_set():
            raise Unavailable(f"{self.file.name}: stopped before it was fetched")

    def _drop(self) -> None:
        """Throw the part and its note away."""
        for path in (self.part, Path(f"{self.part}.json")):
            path.unlink(missing_ok=True)
