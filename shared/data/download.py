"""Files of the catalogue: from the checkout, the cache, a local mirror or the network, and checked wherever they lie.

pooch fetches a file, compares its sha256 and asks again after a failure, by :class:`Resumable`, which goes on where a
broken download stopped. ``BORROWED_OFFLINE=1`` forbids the network.
"""

import glob
import os
import re
from pathlib import Path
from typing import NamedTuple

from shared.data import cache, unpack
from shared.data.catalogue import File, home
from shared.data.errors import DataError, Unavailable

RETRIES = 3  # pooch waits 1, 2 and 3 seconds before them
CONNECT = 15.0  # seconds until a server answers at all
STALL = 30.0  # seconds without a byte
GOOD, BUSY = (200, 206, 416), (408, 429, 500, 502, 503, 504)
# Bytes as they lie on the server: a .gz that is unpacked on the way has another sha256, and cannot be resumed.
HEADERS = {"User-Agent": "borrowed-strength (teaching material)", "Accept-Encoding": "identity"}
CURE = "name a folder that holds it in BORROWED_MIRROR"
HDF5 = b"\x89HDF\r\n\x1a\n"
MAGIC = {".gz": b"\x1f\x8b", ".zip": b"PK", ".whl": b"PK", ".h5": HDF5, ".h5ad": HDF5}  # how such files begin
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)", re.IGNORECASE)


class DownloadError(Exception):
    """This address does not give the file."""


class UnusableError(DownloadError):
    """It gives something that cannot be used."""


class BrokenError(DownloadError, ValueError):
    """It may give the file when it is asked again, which pooch does after a ValueError."""


class Found(NamedTuple):
    """Where a file lies (bundled, cached, mirror, damaged or absent), and what is wrong, in words."""

    state: str
    path: Path | None = None
    problem: str = ""


def offline() -> bool:
    """True where ``BORROWED_OFFLINE`` forbids the network."""
    return os.environ.get("BORROWED_OFFLINE", "").lower() not in ("", "0", "no", "false")


def host(url: str) -> str:
    """The host of an address, for messages: without user, password and what follows."""
    return re.match(r"(?:[^/]*//)?(?:[^/?#]*@)?(\[.*?\]|[^/:?#]*)", url)[1]


def find(file: File, kind: str) -> Found:
    """Where a file of a route lies now, its sha256 checked; the network is not asked."""
    path = home() / file.name if kind == "bundled" else cache.place(file)
    wrong = problem(path, file)
    if not wrong:
        return Found("bundled" if kind == "bundled" else "cached", path)
    if kind == "bundled":
        said = f"{file.name} is not the file the catalogue describes: {wrong}"
        return Found("damaged", problem=f"{said}; restore it with 'git checkout data', or reinstall")
    # Those deep below the top first, so that of two that are the same the one nearest to it is taken.
    copies = sorted(cache.in_mirror(glob.escape(file.name)), key=lambda p: -len(p.parts))
    problems = {p: problem(p, file) for p in copies}
    right = {cache.known_sha256(file) or cache.sha256(p): p for p in copies if not problems[p]}
    if len(right) == 1:
        return Found("mirror", *right.values())
    if path.is_file():
        return Found("damaged", problem=f"the cached copy of {file.name} is damaged: {wrong}")
    if right:
        return Found("absent", problem=f"the mirror holds {len(right)} different files {file.name}: keep the right one")
    said = f"a file {file.name} in the mirror is not the right one: {problems[copies[-1]]}" if copies else ""
    return Found("absent", problem=said)


def get(file: File, *, kind: str, progress: bool = True) -> Path:
    """The path of a file of a route of this `kind`, for reading only, its sha256 checked; fetched where it is not here.

    Where the catalogue has no sha256, later copies are held to that of the first. :class:`Unavailable` is raised if no
    address gives the file now, :class:`DataError` if what is here or was sent is another, or if it cannot be written.
    """
    found = find(file, kind)
    if kind == "bundled" and not found.path:
        raise DataError(found.problem)
    if found.path and cache.known_sha256(file):
        return found.path
    try:
        if not found.path and offline():
            raise Unavailable(f"{file.name} is not here, and BORROWED_OFFLINE forbids to fetch it: unset it, or {CURE}")
        with cache.locked(cache.place(file)):
            cache.sweep(cache.place(file))
            found = find(file, kind)  # another process may have fetched it while this one waited
            path = found.path or _fetched(file, kind, progress)
            if not cache.known_sha256(file):
                cache.write_note(cache.place(file), {"sha256": cache.sha256(path)})
            return path
    except Unavailable as e:
        if not found.problem:
            raise
        raise (DataError if found.state == "damaged" else Unavailable)(f"{found.problem}; {e}") from e
    except OSError as e:  # of the disk: what the network raises has become a DownloadError
        said = "the disk is full; make room, or" if e.errno in cache.FULL else f"{e.strerror or e};"
        raise DataError(f"{file.name} cannot be written: {said} {cache.CURE}") from e


def problem(path: Path, file: File) -> str:
    """What is wrong with a file's bytes; empty for a right one. Without a known sha256 it is read to its end."""
    expected, suffix = cache.known_sha256(file), Path(file.name).suffix.lower()
    if not path.is_file():
        return "it is missing"
    try:
        if file.sha256 and file.size not in (None, path.stat().st_size):
            return "its size differs"
        if expected:
            return "" if cache.sha256(path) == expected else "its sha256 differs"
        with path.open("rb") as f:
            start = f.read(512)
        if PAGE.match(start):
            return "it is a web page (HTML) and no data"
        if not start.startswith(MAGIC.get(suffix, b"")):
            return f"it is no {suffix} file"
        unpack.read_through(path)
        if MAGIC.get(suffix) == HDF5:
            import h5py

            h5py.File(path, "r").close()
    except Exception as e:  # each library has errors of its own
        return f"it is cut short or damaged ({e})"
    return ""


def _fetched(file: File, kind: str, progress: bool) -> Path:
    """Try every address, the file's lock held by the caller; its path in the cache."""
    import pooch

    pooch.get_logger().setLevel("WARNING")  # it tells of every file that it touches
    path, expected, errors, urls = cache.place(file), cache.known_sha256(file), {}, file.urls
    if kind == "package":
        from shared.data import package

        urls = package.addresses(file)
    path.unlink(missing_ok=True)  # damaged
    for url in urls:
        how = {"registry": {path.name: expected}, "urls": {path.name: url}, "retry_if_failed": RETRIES}
        try:
            fetch = pooch.create(path.parent, base_url="", **how).fetch
            return Path(fetch(path.name, downloader=Resumable(file, progress)))
        except (DownloadError, ValueError) as e:
            errors[url] = e
    damaged = any(isinstance(e, UnusableError) or not isinstance(e, DownloadError) for e in errors.values())
    cure = f"try again later, or {CURE}"
    if not file.sha256 and expected and damaged:
        cure = f"if the source has a new version that you want, remove {path.parent} and try again"
    said = "; ".join(dict.fromkeys(f"{host(url)}: {e}" for url, e in errors.items())) or "no address is known"
    raise (DataError if damaged else Unavailable)(f"{file.name} cannot be fetched: {said}; {cure}")


class Resumable:
    """pooch's downloader, which goes on where an earlier one stopped, of this process or of one that was killed.

    Beside the final path lie ``.part``, what has arrived, and ``.part.json``: the ETag or Last-Modified of its version.
    """

    def __init__(self, file: File, progress: bool):
        self.file, self.progress = file, progress
        self.part = Path(f"{cache.place(file)}.part")

    def __call__(self, url: str, output_file: str, _pooch) -> None:
        """Bring what lies at `url` to `output_file`, whole and right."""
        resumed = None
        while resumed is None:
            have, mark = self._had()
            try:
                resumed = self._request(url, have, mark)
            except BrokenError:
                if self._had()[0] < have + cache.CHUNK:  # from break to break, while each try brings something
                    raise
        wrong = problem(self.part, self.file)
        if not wrong:
            os.replace(self.part, output_file)
        self.drop()
        if wrong:  # parts of two versions may have met: after a ValueError pooch asks again, from the start
            raise (ValueError if resumed else UnusableError)(wrong)

    def _had(self) -> tuple[int, str | None]:
        """Bytes of the part that a request may go on from, and the mark of the version they are of."""
        note = cache.read_note(self.part)
        # A file of a known sha256 needs no mark: were two versions to meet, it would tell.
        usable = note and (note.get("mark") or self.file.sha256) and self.part.is_file()
        return (self.part.stat().st_size, note.get("mark")) if usable else (0, None)

    def _request(self, url: str, have: int, known: str | None) -> bool:
        """One request, written to the part as it arrives; True where it went on from one."""
        headers = ({"Range": f"bytes={have}-"} if have else {}) | ({"If-Range": known} if have and known else {})
        with request(url, headers) as response:
            said = response.headers
            if "html" in said.get("Content-Type", "").lower():
                raise DownloadError("it sends a web page (HTML) and no data: a login or an error, perhaps")
            if said.get("Content-Encoding", "identity") != "identity" and not self.file.name.endswith(".gz"):
                raise DownloadError("it packs the file for the way, although it was asked not to")
            etag = said.get("ETag", "W/")
            mark = said.get("Last-Modified") if etag.startswith("W/") else etag  # a weak one promises too little
            if response.status_code == 200:
                have = 0
            elif not said.get("Content-Range", "").startswith(f"bytes {have}-") or known not in (None, mark):
                self.drop()
                raise BrokenError("it cannot go on from a part, or has another version of the file")
            if not have:
                self.drop()
                cache.write_note(self.part, {"mark": mark})
            length = said.get("Content-Length", "")
            self._write(_chunks(response), have, have + int(length) if length.isdecimal() else None)
            return have > 0

    def _write(self, chunks, have: int, total: int | None) -> None:
        from tqdm import tqdm

        bar = {"desc": self.file.name[:32], "total": total, "initial": have, "unit": "B", "unit_scale": True}
        bar |= {"disable": None if self.progress else True, "leave": False, "miniters": 1}
        try:
            with self.part.open("ab", buffering=0) as out, tqdm(**bar) as shown:  # a killed process leaves all of it
                for chunk in chunks:
                    out.write(chunk)
                    shown.update(len(chunk))
        except OSError as e:
            if e.errno in cache.FULL:  # a part would keep it so
                self.drop()
            raise
        if total not in (None, self.part.stat().st_size):
            raise BrokenError(f"it sent {self.part.stat().st_size:,} of {total:,} bytes")

    def drop(self) -> None:
        """Throw the part and its note away."""
        for path in (self.part, Path(f"{self.part}.json")):
            path.unlink(missing_ok=True)


def request(url: str, headers: dict):
    """A response whose status is good, its body unread, or :class:`DownloadError`, whose words hold no password."""
    import requests
    from requests import exceptions as r

    try:
        response = requests.get(url, headers=HEADERS | headers, stream=True, timeout=(CONNECT, STALL))
    except (ValueError, OSError) as e:  # what requests raises is an OSError, too
        again = isinstance(e, (r.Timeout, r.ConnectionError)) and not isinstance(e, (r.SSLError, r.ProxyError))
        raise (BrokenError if again else DownloadError)(f"it cannot be reached ({type(e).__name__})") from None
    bare = url.startswith("https:") and response.url.startswith("http:")
    if response.status_code in GOOD and not bare:
        return response
    response.close()
    if bare:
        raise DownloadError("it sends on to an address without encryption")
    kind = BrokenError if response.status_code in BUSY else DownloadError
    raise kind(f"it answers {response.status_code} {response.reason}")


def _chunks(response):
    """The body's bytes as they lie on the server; :class:`BrokenError` where it falls silent or hangs up."""
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    read = getattr(response.raw, "read1", response.raw.read)  # older versions of urllib3 wait until a chunk is full
    try:
        yield from iter(lambda: read(cache.CHUNK, decode_content=False), b"")
    except ReadTimeoutError:
        raise BrokenError(f"it sent nothing for {STALL:g} s") from None
    except (HTTPError, OSError):
        raise BrokenError("the connection broke") from None
