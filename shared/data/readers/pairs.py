"""Tables of gene names in the catalogue: no expression, so no AnnData."""

from __future__ import annotations

from pathlib import Path

from shared.data.errors import DataError


def read(paths: list[Path]):
    """Refuse, and say where gene names are read: :func:`shared.data.genes.gene_table`."""
    name = Path(paths[0]).name.split(".")[0]
    raise DataError(
        f"{name} is a table of gene names and holds no expression: read it with shared.data.genes.gene_table({name!r})"
    )
