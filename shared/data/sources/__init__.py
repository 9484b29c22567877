"""One function a format: files in, AnnData out.

Each takes the paths of a route's files and its options, and gives cells × genes with the units they are in
(``uns["units"]``) and labels under the names the book uses. A damaged file, or one of another kind, is refused with a
:class:`~shared.data.errors.DataError` that names the file, the problem and the cure.
"""

from __future__ import annotations

import importlib


class _Readers(dict):
    """Readers by name; each module is imported when its reader is first asked for."""

    def __getitem__(self, name):
        value = super().__getitem__(name)
        if isinstance(value, str):
            module, _, function = value.partition(":")
            value = self[name] = getattr(importlib.import_module(f"shared.data.{module}"), function)
        return value

    def get(self, name, default=None):
        """The reader, or `default`."""
        return self[name] if name in self else default  # noqa: SIM401


READERS = _Readers(
    beads="sources.beads:read",
    gct="io.gct:read",
    gdsc="sources.gdsc:read",
    genelab="sources.genelab:read",
    geo_matrix="sources.geo:matrix",
    geo_umi="sources.geo:umi",
    gtex="sources.gtex:read",
    h5ad="io.h5ad:read",
    kang="sources.kang:read",
    mixology="sources.mixology:read",
    orthologs="sources.orthologs:read",
    pairs="sources.pairs:read",
    pbmc68k="sources.pbmc68k:read",
    recount3="sources.recount:read",
    scjoint="sources.scjoint:read",
    scvi="sources.scvi:read",
    segerstolpe="sources.segerstolpe:read",
    series_matrix="sources.geo:series",
    table="io.tables:read",
    tabula_muris="sources.tabula_muris:read",
    tenx_h5="io.tenx:h5",
    tenx_mtx="io.tenx:folder",
    xena="sources.xena:read",
    zheng68k="sources.zheng68k:read",
)
