"""The former name of :mod:`shared.data.cache`, which a page of the book with recorded outputs imports."""

from shared.data.cache import cache_folder as cache_folder
