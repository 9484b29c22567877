"""Files of a local mirror that a study reads: those it names, or an error that says what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import anndata as ad

from shared.data.cache import sha256
from shared.data.errors import DataError


def read_mirror(files: Iterable[Path | str], names: Sequence[str]) -> tuple[dict, dict]:
    """The ``.h5ad`` files of some names, and their hashes.

    Parameters
    ----------
    files : iterable of path
        As :func:`shared.data.in_mirror` gives them; those of other names are passed over.
    names : sequence of str
        Names of files without ``.h5ad``.

    Returns
    -------
    sets : dict of name to AnnData
        In the order of `names`.
    hashes : dict of name to str
        SHA-256 of each file.

    Raises
    ------
    DataError
        If a file is missing.
    """
    paths = {path.stem: path for path in map(Path, files)}
    if lacking := [name for name in names if name not in paths]:
        raise DataError(
            f"{' and '.join(lacking)} are in no folder of BORROWED_MIRROR: the study's page says where these cells can "
            "be had; profile='smoke' takes simulated ones"
        )
    return {name: ad.read_h5ad(paths[name]) for name in names}, {name: sha256(paths[name]) for name in names}
