"""A bundle into numbers: the Python API."""

from media import TimeRange

from .bundle import Bundle, Variant, find_bundles, read_bundle
from .decision import Decision
from .engines import Engines
from .errors import ZorroError
from .options import Space, WeightMemory
from .pipeline import Zorro
from .results import ClipResult, LabelScore, StreamResult, WindowResult
from .scores import Scores

__all__ = [
    "Bundle",
    "ClipResult",
    "Decision",
    "Engines",
    "LabelScore",
    "Scores",
    "Space",
    "StreamResult",
    "TimeRange",
    "Variant",
    "WeightMemory",
    "WindowResult",
    "Zorro",
    "ZorroError",
    "find_bundles",
    "read_bundle",
]  # fmt: skip
