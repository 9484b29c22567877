"""One function a format: files in, AnnData out.

Each takes the paths of a route's files and its options, and gives cells × genes with the units they are in
(``uns["units"]``) and labels under the names the book uses. A damaged file, or one of another kind, is refused with a
:class:`~shared.data.errors.DataError` that names the file, the problem and the cure.
"""

import importlib
from collections.abc import Mapping


class _Readers(Mapping):
    """Readers by name; the module of one is imported when it is asked for."""

    def __init__(self, **homes):
        self._homes = homes

    def __getitem__(self, name):
        module, _, function = self._homes[name].partition(":")
        return getattr(importlib.import_module(f"shared.data.{module}"), function)

    def __iter__(self):
        return iter(self._homes)

    def __len__(self):
        return len(self._homes)


READERS = _Readers(
    beads="sources.zheng:beads",
    gct="io.gct:read",
    gdsc="sources.gdsc:read",
    gene2vec="sources.gene2vec:read",
    genelab="sources.genelab:read",
    geo_matrix="sources.geo:matrix",
    geo_umi="sources.geo:umi",
    gtex="sources.gtex:read",
    h5ad="io.h5ad:read",
    kang="sources.kang:read",
    mixology="sources.mixology:read",
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
    zheng68k="sources.zheng:donor",
)
