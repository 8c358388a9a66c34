"""PNG pictures with damaged EXIF: FFmpeg rejects the whole picture, so it is decoded without EXIF."""

import struct
from typing import Any

import av
import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HIDDEN = b"exIf"  # a private chunk, which decoders skip; its checksum is wrong, which FFmpeg overlooks


def decode_at_once(container: InputContainer, stream: VideoStream) -> bool:
    """Make a PNG picture fail with its packet, not later on, and tell whether it is one."""
    is_png = container.format.name == "png_pipe"
    if is_png:
        stream.codec_context.thread_count = 1  # with more, errors come at the end; one picture gains nothing
    return is_png


def decode_without_exif(stream: VideoStream, packet: "av.Packet[Any]") -> list[VideoFrame]:
    """Frames of a PNG packet that failed, decoded without its EXIF.

    Raises:
        FFmpegError: it was not the EXIF.
    """
    bare = av.Packet(without_exif(bytes(packet)))
    bare.stream, bare.pts, bare.dts, bare.time_base = packet.stream, packet.pts, packet.dts, packet.time_base
    return stream.decode(bare)


def without_exif(content: bytes) -> bytes:
    """A PNG whose EXIF chunks have a name that no decoder knows; other bytes are returned as they are."""
    out, place = bytearray(content), len(SIGNATURE)
    while content.startswith(SIGNATURE) and place + 8 <= len(content):
        length, name = struct.unpack(">I4s", content[place : place + 8])
        if name == b"eXIf":
            out[place + 4 : place + 8] = HIDDEN
        place += length + 12
    return bytes(out)
