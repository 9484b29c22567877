"""One function a format: the paths of a route's files and its options in, AnnData of cells × genes out.

``uns["units"]`` says the units of ``X``, and labels have the names the book uses. Every reader raises
:class:`~shared.data.errors.DataError`, which names the file, the problem and the cure, if a file is missing, damaged
or of another kind, or the files do not belong together.
"""

from shared.data.genes import lists
from shared.data.io import gct, h5ad, tables, tenx
from shared.data.sources import (
    gdsc,
    gene2vec,
    genelab,
    geo,
    gtex,
    kang,
    mixology,
    pbmc68k,
    recount,
    scjoint,
    scvi,
    segerstolpe,
    tabula_muris,
    xena,
    zheng,
)

READERS = {
    "beads": zheng.beads,
    "gct": gct.read,
    "gdsc": gdsc.read,
    "gene2vec": gene2vec.read,
    "genelab": genelab.read,
    "geo_matrix": geo.matrix,
    "geo_umi": geo.umi,
    "gtex": gtex.read,
    "h5ad": h5ad.read,
    "kang": kang.read,
    "mixology": mixology.read,
    "pairs": lists.pairs,
    "pbmc68k": pbmc68k.read,
    "recount3": recount.read,
    "scjoint": scjoint.read,
    "scvi": scvi.read,
    "segerstolpe": segerstolpe.read,
    "series_matrix": geo.series,
    "table": tables.read,
    "tabula_muris": tabula_muris.read,
    "tenx_h5": tenx.h5,
    "tenx_mtx": tenx.folder,
    "xena": xena.read,
    "zheng68k": zheng.donor,
}
