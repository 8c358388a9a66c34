"""Photographs made in code: pictures with EXIF, profiles, XMP and thumbnails, as cameras and phones write
them."""

import io
import struct
import zlib
from collections.abc import Callable, Sequence

import av
import numpy as np

from tests.made_media import add_video_stream, jpeg_bytes

UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
    8: lambda x: np.rot90(x, 1),
}
"""What a viewer makes of a stored picture, by EXIF orientation."""
SHORT, LONG, ASCII = 3, 4, 2
ORIENTATION, MAKE, THUMBNAIL_START, THUMBNAIL_LENGTH = 0x0112, 0x010F, 0x0201, 0x0202

Entry = tuple[int, int, int, bytes]
"""Tag, type, count, and four bytes."""


def corners(height: int = 64, width: int = 128) -> np.ndarray:
    """RGB of red, green over blue, white: no two turns of it look the same."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[: height // 2, : width // 2, 0] = 255
    rgb[: height // 2, width // 2 :, 1] = 255
    rgb[height // 2 :, : width // 2, 2] = 255
    rgb[height // 2 :, width // 2 :] = 255
    return rgb


def stored_for(orientation: int, upright: np.ndarray) -> np.ndarray:
    """The picture that a viewer shows as `upright` if it is stored with this orientation."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    return np.ascontiguousarray(UPRIGHT[inverse](upright))


def exif(orientation: int, *, order: str = "<", thumbnail: bytes | None = None) -> bytes:
    """A TIFF block with an orientation, a maker's name, and a thumbnail that has an orientation of its
    own."""
    make = b"a camera\0"
    first = [(MAKE, ASCII, len(make), b"\0" * 4), (ORIENTATION, SHORT, 1, _short(order, orientation))]
    start = 8 + _ifd_length(first)
    first[0] = (MAKE, ASCII, len(make), struct.pack(order + "I", start))
    if thumbnail is None:
        return _header(order) + ifd(first, order=order) + make
    second_start = start + len(make)
    second: list[Entry] = [
        (ORIENTATION, SHORT, 1, _short(order, 3 if orientation == 1 else 1)),
        (THUMBNAIL_START, LONG, 1, b"\0" * 4),
        (THUMBNAIL_LENGTH, LONG, 1, struct.pack(order + "I", len(thumbnail))),
    ]
    thumbnail_start = second_start + _ifd_length(second)
    second[1] = (THUMBNAIL_START, LONG, 1, struct.pack(order + "I", thumbnail_start))
    blocks = ifd(first, order=order, next_start=second_start) + make + ifd(second, order=order)
    return _header(order) + blocks + thumbnail


def ifd(entries: Sequence[Entry], *, order: str = "<", next_start: int = 0) -> bytes:
    """A directory of a TIFF block."""
    packed = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    return struct.pack(order + "H", len(entries)) + packed + struct.pack(order + "I", next_start)


def segment(number: int, content: bytes) -> bytes:
    """The segment APP`number` of a JPEG."""
    return b"\xff" + bytes([0xE0 + number]) + struct.pack(">H", len(content) + 2) + content


def exif_segment(block: bytes) -> bytes:
    """The segment of a JPEG in which EXIF lies."""
    return segment(1, b"Exif\0\0" + block)


def jpeg(rgb: np.ndarray, *segments: bytes) -> bytes:
    """A JPEG with segments right after its start."""
    content = jpeg_bytes(rgb)
    return content[:2] + b"".join(segments) + content[2:]


def photograph(rgb: np.ndarray, orientation: int, *, order: str = "<") -> bytes:
    """A JPEG with all that a phone writes: JFIF, XMP, EXIF with a black thumbnail, and a colour profile."""
    thumbnail = jpeg_bytes(np.zeros((16, 16, 3), np.uint8))
    block = exif(orientation, order=order, thumbnail=thumbnail)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="5"></x:xmpmeta>'
    return jpeg(
        rgb,
        segment(0, b"JFIF\0\x01\x01\x00\x00\x01\x00\x01\x00\x00"),
        segment(1, b"http://ns.adobe.com/xap/1.0/\0" + xmp),
        exif_segment(block),
        segment(2, b"ICC_PROFILE\0\x01\x01" + bytes(128)),
        segment(13, b"Photoshop 3.0\0" + bytes(20)),
    )


def png(rgb: np.ndarray, block: bytes | None = None, *, profile: str | None = None) -> bytes:
    """A PNG, with EXIF if `block` is given, and with a colour profile of that name."""
    content = _encoded(rgb, codec="png", container="image2pipe", pixels="rgb24")
    chunks = b"" if block is None else _png_chunk(b"eXIf", block)
    if profile is not None:
        chunks += _png_chunk(b"iCCP", profile.encode() + b"\0\0" + zlib.compress(b"of colours" * 20))
    return content[:33] + chunks + content[33:]


def webp(rgb: np.ndarray, block: bytes) -> bytes:
    """A lossless WebP with EXIF."""
    content = _encoded(rgb, codec="libwebp", container="webp", pixels="bgra", lossless="1")
    (length,) = struct.unpack("<I", content[16:20])
    height, width = rgb.shape[:2]
    header = b"\x08\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = ((b"VP8X", header), (content[12:16], content[20 : 20 + length]), (b"EXIF", block))
    body = b"WEBP" + b"".join(_riff_chunk(name, data) for name, data in chunks)
    return _riff_chunk(b"RIFF", body)


def tiff(rgb: np.ndarray, orientation: int) -> bytes:
    """A TIFF of one strip."""
    height, width = rgb.shape[:2]
    pixels, bits = rgb.tobytes(), struct.pack("<HHH", 8, 8, 8)
    shorts = {256: width, 257: height, 259: 1, 262: 2, ORIENTATION: orientation, 277: 3, 278: height}
    entries = [(tag, SHORT, 1, _short("<", value)) for tag, value in shorts.items()]
    longs = ((258, SHORT, 3, 8), (273, LONG, 1, 8 + len(bits)), (279, LONG, 1, len(pixels)))
    entries += [(tag, kind, count, struct.pack("<I", value)) for tag, kind, count, value in longs]
    start = 8 + len(bits) + len(pixels)
    return b"II*\0" + struct.pack("<I", start) + bits + pixels + ifd(sorted(entries))


def _header(order: str) -> bytes:
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)


def _short(order: str, value: int) -> bytes:
    return struct.pack(order + "HH", value, 0)


def _ifd_length(entries: Sequence[Entry]) -> int:
    return 2 + 12 * len(entries) + 4


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _riff_chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _encoded(rgb: np.ndarray, *, codec: str, container: str, pixels: str, **options: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = add_video_stream(out, codec, rate=1, size=(rgb.shape[1], rgb.shape[0]), **options)
        stream.pix_fmt = pixels
        out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixels)))
        out.mux(stream.encode(None))
    return file.getvalue()
