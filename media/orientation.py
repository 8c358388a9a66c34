"""How a frame is to be displayed: turned by quarter turns, mirrored, or as it is stored.

Containers (MP4, MOV) have a display matrix for it, still pictures (JPEG, PNG, WebP, TIFF) the EXIF tag
"Orientation". FFmpeg makes a display matrix of that tag too, so only the matrix is read here; reading EXIF as
well would turn pictures twice.
"""

from fractions import Fraction
from typing import Any, NamedTuple, cast

import av
import av.error
import av.filter
import numpy as np
from av.sidedata.sidedata import Type as SideDataKind
from av.video.frame import VideoFrame

from .memory import raise_if_starved

NUM_SIDE_DATA_KINDS = 48  # FFmpeg numbers kinds of side data from 0; 8.1 has 33
ROTATION_MATRICES = {0: (1, 0, 0, 1), 1: (0, -1, 1, 0), 2: (-1, 0, 0, -1), 3: (0, 1, -1, 0)}
"""Display matrices (a, b, c, d) by quarter turns counterclockwise."""
_LISTED_KINDS = {cast(int, kind.value) for kind in SideDataKind if kind != SideDataKind.ICC_PROFILE}
_HARMFUL_KINDS = [kind for kind in range(NUM_SIDE_DATA_KINDS) if kind not in _LISTED_KINDS]


class Orientation(NamedTuple):
    """Steps from a stored picture (an array of rows and columns) to the displayed one: swap, then flip."""

    swaps_axes: bool = False
    """Whether rows become columns."""
    flipped_axes: tuple[int, ...] = ()
    """Axes that run backwards after that: 0 upside down, 1 left and right exchanged."""


AS_STORED = Orientation()


def orientation(frame: VideoFrame) -> Orientation:
    """How the frame is to be displayed; tilts are rounded to quarter turns.

    The display matrix sends a pixel at (x, y) to (a x + c y, b x + d y).
    """
    matrix = _display_matrix(frame)
    if matrix is None:
        return AS_STORED
    a, b, c, d = matrix
    swaps_axes = abs(b) + abs(c) > abs(a) + abs(d)
    down, right = (b, c) if swaps_axes else (d, a)
    return Orientation(swaps_axes, tuple(axis for axis, step in enumerate((down, right)) if step < 0))


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """(a, b, c, d) of the frame's display matrix.

    The surprising facts: PyAV lists all side data of a frame or, if FFmpeg has a newer kind than PyAV has
    names for, none. EXIF is such a kind, and so are some of stereoscopic films. And it frees the name of a
    colour profile, as PNG has them, which FFmpeg frees too: the process would crash.
    """
    try:
        side_data = _without_harmful_side_data(frame).side_data
    except (ValueError, av.error.FFmpegError) as error:
        raise_if_starved(error)
        return ROTATION_MATRICES[round(frame.rotation / 90) % 4]  # right but for mirrored pictures
    matrix = cast(Any, side_data.get("DISPLAYMATRIX"))
    if matrix is None:
        return None
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()
    return a, b, c, d


def _without_harmful_side_data(frame: VideoFrame) -> VideoFrame:
    """The same picture, of the same memory, without the side data that PyAV cannot list."""
    graph = av.filter.Graph()
    graph.threads = 1
    steps = [graph.add("sidedata", f"mode=delete:type={kind}") for kind in _HARMFUL_KINDS]
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
    )
    graph.link_nodes(source, *steps, graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()
