"""Image sizes, read from file headers without decoding, and the size limit for images that are decoded."""

import struct

MAX_PIXELS = 36_000_000
"""Maximum number of pixels of an image or movie frame that is decoded; a frame of 8K video has 33 million."""

_PNG = b"\x89PNG\r\n\x1a\n"
_BMP = b"BM"
_JPEG = b"\xff\xd8"
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG markers that begin a frame header, which contains the size."""
_BASELINE = {0xC0, 0xC1}
"""Markers of images that are decoded block by block; for other images, decoders hold all coefficients in memory."""
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
"""Markers that no length field follows."""


def choose_reduction(data: bytes) -> int | None:
    """Return the factor by which decoding must reduce the sides of an image so that it has at most MAX_PIXELS.

    Only a JPEG that is not progressive can be reduced while it is decoded.

    Returns:
        1, 2, 4 or 8; None if the image is too large even so, or its header contains no size.
    """
    factors = (1, 2, 4, 8) if _jpeg_pixels(data)[1] in _BASELINE else (1,)
    return next((factor for factor in factors if 0 < count_pixels(data) <= MAX_PIXELS * factor**2), None)


def count_pixels(data: bytes) -> int:
    """Return the number of pixels of a JPEG, PNG or BMP according to its header; 0 if the header contains no size."""
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
    elif data.startswith(_BMP) and len(data) >= 26:
        width, height = struct.unpack("<ii", data[18:26])
    else:
        return _jpeg_pixels(data)[0]
    return abs(int(width * height))


def _jpeg_pixels(data: bytes) -> tuple[int, int]:
    """Return the number of pixels of a JPEG and the marker of its frame header; (0, 0) if there is no such header."""
    position = data.find(b"\xff", 2) if data.startswith(_JPEG) else -1
    while 0 <= position < len(data) - 9:
        marker = data[position + 1]
        if marker in _SOF:
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return int(width * height), marker
        skipped = 1 if marker in (0x00, 0xFF) else 2  # decoders skip stray bytes between two segments, too
        if skipped == 2 and marker not in _WITHOUT_LENGTH:
            skipped += int.from_bytes(data[position + 2 : position + 4])
        position = data.find(b"\xff", position + skipped)
    return 0, 0
