"""One file from an address into the cache: resumed, tried again, checked, and in place only when it is right."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import time
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from shared.data.catalogue import File
from shared.data.errors import DataError, Unavailable
from shared.data.store import CHUNK, cache_folder, head_problem, known_sha256, problem, read_note, sha256, write_note

TRIES = 5  # in a row that bring less than a chunk
WAIT = 0.5  # seconds before the second try; doubled before each one after it
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for
CONNECT = 15.0  # seconds until a server answers at all
STALL = 30.0  # seconds without a byte
SLOWEST = 1024  # bytes a second, over two times STALL
CONNECTIONS = 4
SPARE = 16 << 20  # bytes that a download leaves free
ROOM = "make room, or name a folder on another disk in BORROWED_CACHE"
AGENT = "borrowed-strength (teaching material; one reader's download)"

_slots = threading.BoundedSemaphore(CONNECTIONS)
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class DownloadError(Exception):
    """This address does not give the file."""


class _Damaged(DownloadError):
    """It gives something, which is not the file."""


class _Broken(Exception):
    """The transfer stopped midway; the same address may go on."""


@cache
def _session():
    """One session for the process: connections are kept open, and a busy server is asked again after a while."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    class Patient(Retry):
        def get_retry_after(self, response):
            asked = super().get_retry_after(response)
            return None if asked is None else min(asked, LONGEST_WAIT)

    retry = Patient(
        total=TRIES - 1,
        connect=2,
        read=1,
        backoff_factor=WAIT,
        status_forcelist=(408, 429, 500, 502, 503, 504),
        allowed_methods=("GET",),
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=CONNECTIONS))
    # Bytes as they lie on the server: a .gz that is unpacked on the way has another sha256, and cannot be resumed.
    session.headers.update({"User-Agent": AGENT, "Accept-Encoding": "identity"})
    return session


def host(url: str) -> str:
    """The host of an address, for messages: without user, password and what follows."""
    return urlsplit(url).hostname or "this machine"


def without_user(url: str) -> str:
    """An address without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def ask(url: str, headers: dict | None = None, **options):
    """A response whose status is good, its body unread; :class:`DownloadError` with plain words where there is none.

    The words never hold the address: it may carry a password.
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
    wrong = ""
    if url.startswith("https:") and response.url.startswith("http:"):
        wrong = "it sends on to an address that is not encrypted"
    elif response.status_code not in (200, 206, 416):
        wrong = f"it answers {response.status_code} {response.reason or ''}".strip()
    if wrong:
        response.close()
        raise DownloadError(wrong)
    return response


class Download:
    """One file on its way into the cache; its lock is held by the caller.

    Beside the final path lie ``.part``, what has arrived, and ``.part.json``: the address it came from, what the server
    says to tell this version of the file from another (ETag or Last-Modified), and the size it will have.
    """

    def __init__(self, file: File, path: Path, *, progress: bool, stop: threading.Event, damage: str = ""):
        self.file, self.path, self.progress, self.stop, self.damage = file, path, progress, stop, damage
        self.part, self.expected = Path(f"{path}.part"), known_sha256(file)
        self.options: dict = {}

    def run(self, kind: str) -> Path:
        """Try every address; the final path."""
        urls, said, damaged = self.file.urls, [self.damage] if self.damage else [], bool(self.damage)
        if kind == "package":
            from shared.data import package

            urls, self.options = package.addresses(self.file), package.options()
        for url in urls:
            try:
                urlsplit(url)
            except ValueError:
                said.append("an address cannot be read")
                continue
            try:
                return self._local(url) if url.startswith("file:") else self._from(url)
            except DownloadError as e:
                said.append(f"{host(url)}: {e}")
                damaged = damaged or isinstance(e, _Damaged)
            except OSError as e:  # of the disk: what the network raises has become DownloadError
                if e.errno in _FULL:
                    self._drop()
                what = "the disk is full" if e.errno in _FULL else e.strerror or e
                raise DataError(f"{self.file.name} cannot be written to {cache_folder()}: {what}; {ROOM}") from e
        cure = "try again later, or name a folder that holds it in BORROWED_MIRROR"
        if not self.file.sha256 and self.expected and damaged:
            cure = f"if the source has a new version that you want, remove {self.path.parent} and try again"
        error = DataError if damaged else Unavailable
        raise error(f"{self.file.name} cannot be fetched: {'; '.join(said) or 'no address is known'}; {cure}")

    def _local(self, url: str) -> Path:
        """A file that an index on this machine points to is used where it lies."""
        from urllib.request import url2pathname

        path = Path(url2pathname(urlsplit(url).path))
        if not path.is_file():
            raise DownloadError("the file is not there")
        wrong = problem(path, self.file)
        if wrong:
            raise _Damaged(wrong)
        return path

    def _from(self, url: str) -> Path:
        """Fetch from one address; a part that turns out wrong is thrown away, and tried once more from its start."""
        for again in (False, True):
            self.resumed = False
            self._transfer_all(url)
            wrong = problem(self.part, self.file)
            if not wrong:
                break
            self._drop()
            if again or not self.resumed:
                raise _Damaged(wrong)
        note = {"sha256": self.expected or sha256(self.part), "from": host(url), "size": self.part.stat().st_size}
        write_note(self.path, note)
        os.replace(self.part, self.path)
        self._drop()
        return self.path

    def _transfer_all(self, url: str) -> None:
        """Go on until the part is whole, from one break to the next, as long as each try brings something."""
        tries, most = 0, self._have(url)
        while True:
            self._stopped()
            try:
                with _slots:
                    return self._transfer(url)
            except _Broken as e:
                have = self._have(url)
                tries = 0 if have >= most + CHUNK else tries + 1
                most = max(most, have)
                if tries >= TRIES:
                    raise DownloadError(str(e)) from None
            self.stop.wait(min(WAIT * 2 ** max(tries - 1, 0), LONGEST_WAIT))

    def _have(self, url: str) -> int:
        """Bytes of the part that a transfer from `url` may go on from."""
        note = read_note(self.part)
        same = note.get("address") == without_user(url) and (note.get("etag") or note.get("modified"))
        # A pinned file may go on from another address: were the two not the same, its sha256 would tell.
        usable = self.part.is_file() and note and (same or self.file.sha256)
        return self.part.stat().st_size if usable else 0

    def _transfer(self, url: str) -> None:
        """One request, written to the part as it arrives."""
        have, note = self._have(url), read_note(self.part)
        self.resumed = self.resumed or have > 0
        if have and have == note.get("total"):
            return  # whole already: a process was killed between the last byte and the check
        headers = {"Range": f"bytes={have}-"} if have else {}
        mark = note.get("etag") or note.get("modified")
        if have and mark and note.get("address") == without_user(url):
            headers["If-Range"] = mark
        with ask(url, headers, **self.options) as response:
            if not self._resumes(response, url, have, note):
                have = 0
            total = self._total(response, have)
            self.since, self.window = time.monotonic(), 0  # of the watch on slow servers
            head = self._read(response, 512)
            if not have:
                wrong = head_problem(head, self.file)
                if wrong:
                    raise DownloadError(wrong)
                self._drop()
            self._room((total or self.file.size or 0) - have)
            if not have:
                write_note(self.part, self._mark(response, url) | {"total": total})
            self._body(response, head, have, total)

    def _resumes(self, response, url: str, have: int, note: dict) -> bool:
        """True if the body goes on from byte `have`, False if it is the file from its start."""
        kind = response.headers.get("Content-Type", "").lower()
        if "html" in kind and not self.file.name.lower().endswith((".html", ".htm")):
            raise DownloadError("it sends a web page (HTML) and no data: a login or an error, perhaps")
        if response.status_code == 200:
            return False
        span = response.headers.get("Content-Range", "")
        start = span.removeprefix("bytes ").partition("-")[0].strip()
        mark = self._mark(response, url)
        known = mark["address"] == note.get("address") and mark["etag"] and note.get("etag")
        other = known and mark["etag"] != known
        if not have or response.status_code == 416 or start != str(have) or other:
            self._drop()
            raise _Broken("it cannot go on from a part, or has another version of the file")
        return True

    def _mark(self, response, url: str) -> dict:
        """What tells this version of the file from another. A weak ETag does not promise the same bytes."""
        etag = response.headers.get("ETag", "")
        return {
            "address": without_user(url),
            "etag": None if etag.startswith("W/") else etag or None,
            "modified": response.headers.get("Last-Modified"),
        }

    def _total(self, response, have: int) -> int | None:
        """Bytes the whole file will have; None where the server does not say."""
        length = response.headers.get("Content-Length", "")
        if not length.isdigit() or self._decoded(response):
            return None
        total = have + int(length)
        if self.file.sha256 and self.file.size is not None and total != self.file.size:
            raise _Damaged(f"it has {total:,} bytes, and the catalogue says {self.file.size:,}")
        return total

    def _decoded(self, response) -> bool:
        """True where a server packs the bytes for the way although it was asked not to."""
        packing = response.headers.get("Content-Encoding", "identity").lower()
        return packing not in ("", "identity") and Path(self.file.name).suffix.lower() not in (".gz", ".tgz")

    def _read(self, response, size: int) -> bytes:
        """At least `size` bytes of the body, or what is left of it."""
        got = more = self._some(response, size)
        while more and len(got) < size:
            more = self._some(response, size - len(got))
            got += more
        return got

    def _some(self, response, size: int = CHUNK) -> bytes:
        """The next bytes of the body as soon as there are some; none at its end."""
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        raw = response.raw
        read = getattr(raw, "read1", raw.read)  # older versions of urllib3 wait until `size` bytes are there
        try:
            got = read(size, decode_content=self._decoded(response))
        except ReadTimeoutError:
            raise _Broken(f"it sent nothing for {STALL:g} s") from None
        except (HTTPError, OSError):
            raise _Broken("the connection broke") from None
        self.window += len(got)
        if time.monotonic() - self.since > 2 * STALL:
            if self.window < SLOWEST * 2 * STALL:
                raise _Broken(f"it sent only {self.window:,} bytes in {2 * STALL:g} s")
            self.since, self.window = time.monotonic(), 0
        return got

    def _room(self, need: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if need > 0 and need + SPARE > free:
            raise DataError(
                f"{self.file.name} needs {need / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free in {cache_folder()}: "
                f"{ROOM}"
            )

    def _body(self, response, chunk: bytes, have: int, total: int | None) -> None:
        """Append what arrives to the part."""
        from tqdm import tqdm

        bar = {
            **{
                "desc": self.file.name[:32],
                "total": total,
                "initial": have,
                "disable": None if self.progress else True,
            },
            **{"unit": "B", "unit_scale": True, "unit_divisor": 1000, "leave": False, "miniters": 1},
        }
        # Without a buffer, so that a killed process leaves all that arrived, and closing has nothing left to write.
        with self.part.open("ab", buffering=0) as out, tqdm(**bar) as shown:
            while chunk:
                view = memoryview(chunk)
                while view:
                    view = view[out.write(view) :]
                shown.update(len(chunk))
                self._stopped()
                chunk = self._some(response)
        done = self.part.stat().st_size
        if total is not None and done != total:
            raise _Broken(f"it sent {done:,} of {total:,} bytes")

    def _stopped(self) -> None:
        if self.stop.is_set():
            raise Unavailable(f"{self.file.name}: stopped before it was fetched")

    def _drop(self) -> None:
        """Throw the part and its note away."""
        for path in (self.part, Path(f"{self.part}.json")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
