"""A bundle into numbers: the Python API."""

from .bundle import Bundle, Variant, find_bundles, read_bundle
from .errors import ZorroError
from .options import Memory, Space
from .pipeline import Zorro
from .results import ClipResult, LabelScore, StreamResult, WindowResult
from .scores import Scores

__all__ = [
    "Bundle", "ClipResult", "LabelScore", "Memory", "Scores", "Space", "StreamResult", "Variant", "WindowResult", "Zorro",
    "ZorroError", "find_bundles", "read_bundle",
]  # fmt: skip
