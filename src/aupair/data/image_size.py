"""The size of an image, read from its header before anything is decoded, and the largest image that is decoded."""

import struct

MAX_PIXELS = 36_000_000
"""The pixels of the largest image or frame of a movie that is decoded; a frame of 8K video has 33 million."""

_PNG = b"\x89PNG\r\n\x1a\n"
_BMP = b"BM"
_JPEG = b"\xff\xd8"
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG that begin a header with the size."""
_BASELINE = {0xC0, 0xC1}
"""Those of images that are decoded block by block; a decoder holds all coefficients of others at once."""
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


def choose_reduction(data: bytes) -> int | None:
    """Return by what to divide the sides of a JPEG or PNG while it is decoded, so that it has at most MAX_PIXELS.

    Returns:
        1, 2, 4 or 8; None where the image is too large for that, or has no size in its header. Only a JPEG that is not
        progressive can be decoded smaller than it is.
    """
    factors = (1, 2, 4, 8) if _jpeg_pixels(data)[1] in _BASELINE else (1,)
    return next((factor for factor in factors if 0 < count_pixels(data) <= MAX_PIXELS * factor**2), None)


def count_pixels(data: bytes) -> int:
    """Return the pixels of a JPEG, PNG or BMP by its header; 0 where it has none."""
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
    elif data.startswith(_BMP) and len(data) >= 26:
        width, height = struct.unpack("<ii", data[18:26])
    else:
        return _jpeg_pixels(data)[0]
    return abs(int(width * height))


def _jpeg_pixels(data: bytes) -> tuple[int, int]:
    """Return the pixels of a JPEG and the marker of its header; (0, 0) where it has none."""
    place = data.find(b"\xff", 2) if data.startswith(_JPEG) else -1
    while 0 <= place < len(data) - 9:
        marker = data[place + 1]
        if marker in _SOF:
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return int(width * height), marker
        skipped = 1 if marker in (0x00, 0xFF) else 2  # decoders skip stray bytes between two segments, too
        if skipped == 2 and marker not in _WITHOUT_LENGTH:
            skipped += int.from_bytes(data[place + 2 : place + 4])
        place = data.find(b"\xff", place + skipped)
    return 0, 0
