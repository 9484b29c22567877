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
            value = self[name] = getattr(importlib.import_module(f"shared.data.readers.{module}"), function)
        return value

    def get(self, name, default=None):
        """The reader, or `default`."""
        return self[name] if name in self else default  # noqa: SIM401


READERS = _Readers(
    beads="beads:read",
    gct="gtex:read",
    gdsc="gdsc:read",
    genelab="genelab:read",
    geo_matrix="geo:matrix",
    geo_umi="geo:umi",
    h5ad="plain:h5ad",
    kang="mtx:kang",
    mixology="mixology:read",
    orthologs="orthologs:read",
    pairs="pairs:read",
    pbmc68k="pbmc68k:read",
    recount3="recount:read",
    scvi="scvi:read",
    segerstolpe="segerstolpe:read",
    series_matrix="geo:series",
    table="plain:table",
    tabula_muris="tabula_muris:read",
    tenx_h5="hdf:read",
    tenx_mtx="mtx:tenx",
    xena="xena:read",
)
