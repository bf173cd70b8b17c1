"""Formats that are zip files: opened only where what they unpack to is within bounds."""

from __future__ import annotations

import io
from zipfile import BadZipFile, ZipFile

from rag_opt.documents.parsed import UnreadableFileError

UNPACKED = 1_000_000_000
"""Bytes that an archive may unpack to."""

RATIO = 200
"""So many times its size it may, where it is more than SMALL: documents have 2 to 20, bombs a thousand and more."""

SMALL = 20_000_000

MEMBERS = 20_000
"""Files that it may hold."""


def open_archive(data: bytes) -> ZipFile:
    """The archive; raises UnreadableFileError where it is none, is encrypted, or unpacks to too much."""
    try:
        archive = ZipFile(io.BytesIO(data))
    except (BadZipFile, ValueError) as error:
        raise UnreadableFileError(f"it is damaged, or no file of its ending: {error}") from error
    if len(archive.infolist()) > MEMBERS:
        raise UnreadableFileError(f"it holds {len(archive.infolist()):,} files")
    # As the archive declares it: zipfile reads no more of a member than that, so a false size gains nothing.
    size = sum(info.file_size for info in archive.infolist())
    if size > UNPACKED or (size > SMALL and size > RATIO * len(data)):
        raise UnreadableFileError(f"it unpacks to {size / 1e6:,.0f} MB, {size // max(1, len(data)):,} times its size")
    # Bit 0 says that a member is encrypted (APPNOTE 4.4.4).
    if any(info.flag_bits & 1 for info in archive.infolist()):
        raise UnreadableFileError("it is encrypted")
    return archive


def check_archive(data: bytes) -> None:
    """Raise UnreadableFileError as `open_archive` does; OLE files that hold encrypted Office ones are named, too."""
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise UnreadableFileError("it is encrypted, or of an Office before 2007: save it anew without a password")
    open_archive(data).close()
