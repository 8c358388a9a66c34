"""Every preset: parameters, tokens, GFLOPs, and the time of a window of audio, of video and of both.

Counts are taken on the meta device, where a tensor has a shape but no memory. Times are of torch on this CPU,
fp32, batch 1, with untrained weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from evaluation.report import markdown_table
from models import PRESETS, Stream, ZorroConfig, ZorroModel, preset
from models.size import model_size

from .measure import NUM_THREADS, interleave
from .result import Result

AUDIOSET_CLASSES = 527
PRESET_COLUMNS = (
    "preset",
    "parameters, M",
    "tokens, audio + video + fusion",
    "GFLOPs, both",
    "audio, ms",
    "video, ms",
    "both, ms",
)


def run(rounds: int = 3) -> Result:
    """Count and measure all presets, each on its own inputs."""
    torch.set_num_threads(NUM_THREADS)
    result = Result(name="presets", parameters={"batch": 1, "threads": NUM_THREADS, "rounds": rounds})
    for name in PRESETS:
        config = preset(name, num_classes=AUDIOSET_CLASSES)
        with torch.no_grad():
            sides = _preset_sides(name, config)
            result.entries |= interleave(sides, rounds=rounds)
        times = {
            f"{part}_ms": result.entries[f"{name}, {part}"].min * 1e3 for part in ("audio", "video", "both")
        }
        result.records.append({"preset": name, **asdict(model_size(config)), **times})
    return result


def presets_table(result: Mapping[str, Any]) -> str:
    """The records as a Markdown table."""
    rows = [
        (
            f"`{r['preset']}`",
            f"{r['parameters'] / 1e6:.1f}",
            " + ".join(map(str, r["tokens"])),
            f"{r['gflops']:.1f}",
            *(f"{r[f'{part}_ms']:,.0f}" for part in ("audio", "video", "both")),
        )
        for r in result["records"]
    ]
    return markdown_table(PRESET_COLUMNS, rows)


def _preset_sides(name: str, config: ZorroConfig) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    model = ZorroModel(config).eval()
    audio = torch.randn(1, *config.audio_shape) * config.audio_std + config.audio_mean
    video = torch.randint(0, 256, (1, *config.video_shape), dtype=torch.uint8)
    return {
        f"{name}, audio": partial(model.forward_stream, Stream.AUDIO, audio),
        f"{name}, video": partial(model.forward_stream, Stream.VIDEO, video),
        f"{name}, both": partial(model, audio, video),
    }
