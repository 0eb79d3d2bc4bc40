"""Compressed files: recognized by their first bytes, whatever their name is."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable

from harness.data.unreadable import Unreadable

UNPACKERS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    ".gz": (b"\x1f\x8b", gzip.decompress),
    ".bz2": (b"BZh", bz2.decompress),
    ".xz": (b"\xfd7zXZ\x00", lzma.decompress),
}


def inner_name(name: str) -> str:
    """The file's name without the ending of a compression: ``rows.jsonl.gz`` holds ``rows.jsonl``."""
    for suffix in UNPACKERS:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def unpacked(content: bytes) -> bytes:
    """The content as it was before its compression.

    Raises:
        Unreadable: the compressed bytes are broken, or they are an archive of several files.
    """
    for suffix, (start, unpack) in UNPACKERS.items():
        if content.startswith(start):
            try:
                content = unpack(content)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as fault:
                raise Unreadable(
                    f"its {suffix[1:]} compression is broken or incomplete ({fault}); copy or download it again"
                ) from fault
    if content[257:262] == b"ustar":
        raise Unreadable(
            "it is a tar archive; unpack it first (tar xf FILE) and set data.path to the extracted file or folder"
        )
    return content
