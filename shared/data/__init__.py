"""Where expression data come in: every matrix through one door, as AnnData.

``load("pbmc")`` takes a data set of the catalogue, ``load("cells.h5ad")`` a file of your own. Both pass the same
checks.
"""

from shared.data.catalogue import Entry, File, Route, bundled_path, catalog
from shared.data.door import from_arrays, load, to_arrays
from shared.data.errors import DataError

__all__ = ["DataError", "Entry", "File", "Route", "bundled_path", "catalog", "from_arrays", "load", "to_arrays"]
