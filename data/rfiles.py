"""Read R's own files in the making scripts, with rdata (``pip install rdata``).

It is needed to make the data, never to use them. rdata only parses; no R code in a file is run.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import sys
import warnings
import zlib


def _convert(content, extension):
    try:
        import rdata
    except ImportError:
        sys.exit("reading R files needs rdata: pip install rdata (into an environment of its own, if you like)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of R classes that it passes through as plain objects
        parsed = rdata.parser.parse_data(content, extension=extension)
        return rdata.conversion.convert(parsed, default_encoding="utf8")


def rda(content: bytes) -> dict:
    """Every object of an ``.rda`` file by name."""
    return _convert(content, ".rda")


def lazy(rdx: bytes, rdb: bytes, name: str):
    """The object `name` of a lazy-load database: an index (``.rdx``) and the packed objects (``.rdb``)."""
    offset, length = map(int, _convert(rdx, ".rds")["variables"][name])
    packed = rdb[offset : offset + length]
    # Four bytes of the unpacked length, then what packed it: "2" bzip2, "Z" xz without its header, else zlib at once.
    (size,) = struct.unpack(">I", packed[:4])
    if packed[4:5] == b"2":
        content = bz2.decompress(packed[5:])
    elif packed[4:5] == b"Z":
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 26}]
        content = lzma.decompress(packed[5:], format=lzma.FORMAT_RAW, filters=filters)
    else:
        content = zlib.decompress(packed[4:])
    assert len(content) == size
    return _convert(content, ".rds")
