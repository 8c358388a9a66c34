"""Context models: a graph's engine as ONNX Runtime wrote it.

It opens one next time without parsing or optimising the graph.

A context model is a graph of one node over a file with the engine; no sum of the bundle covers either. So
what was written is listed with its sha256 in a file that `sha256sum -c` reads, and is opened only as it was
written. Sums show damage, not
malice: who may write to the folder may change them, too.

The engine lies beside the model and not within, and graph optimisation is off, as ONNX Runtime advises for
quick starts.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from .bundle import sha256_of
from .engines import timing_options
from .errors import EngineCacheCorrupt, ProviderUnavailable

SUMS_FILE = "SHA256SUMS"


class EngineContext:
    """The context model of one graph, in the folder `context` of the graph's folder in the engine cache."""

    def __init__(self, folder: Path, graph: str) -> None:
        self._parent, self.folder = folder, folder / "context"
        self.path = self.folder / f"{graph}_ctx.onnx"

    @property
    def is_written(self) -> bool:
        """Whether there is one; it comes to its place whole."""
        return self.folder.is_dir()

    def write(self, build: Callable[[dict[str, str]], None]) -> None:
        """Let `build` open the graph, and keep what ONNX Runtime writes.

        `build` is given the options of TensorRT that make ONNX Runtime write.

        Raises:
            ProviderUnavailable: nothing was written.
        """
        with TemporaryDirectory(dir=self._parent, prefix=".part-") as part:
            folder = Path(part) / "context"
            folder.mkdir()
            build(self._options(folder / self.path.name))
            if not (folder / self.path.name).is_file():
                raise ProviderUnavailable(
                    f"ONNX Runtime wrote no {self.path.name}: TensorRT takes only a part of the graph, if "
                    "any; switch the engine context off"
                )
            lines = [f"{digest}  {name}\n" for name, digest in _sums(folder).items()]
            (folder / SUMS_FILE).write_text("".join(lines))
            self._put_in_place(folder)

    def verify(self) -> None:
        """Raise EngineCacheCorrupt unless all files are there, and as they were written."""
        try:
            lines = (self.folder / SUMS_FILE).read_text().splitlines()
            wanted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        except (OSError, ValueError) as error:
            raise EngineCacheCorrupt(
                f"{self.folder}: {SUMS_FILE} cannot be read; remove this folder"
            ) from error
        got = _sums(self.folder)
        wrong = sorted(
            name for name in {self.path.name, *got, *wanted} if got.get(name) != wanted.get(name, "")
        )
        if wrong:
            raise EngineCacheCorrupt(
                f"{self.folder}: {', '.join(wrong)} not as written; remove this folder, and the engine is "
                "built again"
            )

    def _options(self, path: Path) -> dict[str, str]:
        """No `trt_engine_cache_path`: it would have to be relative, and the engine lie below the model."""
        return timing_options(self._parent) | {
            "trt_dump_ep_context_model": "True",
            "trt_ep_context_file_path": str(path),
            "trt_ep_context_embed_mode": "0",
        }

    def _put_in_place(self, folder: Path) -> None:
        try:
            folder.rename(self.folder)
        except OSError:
            if not self.is_written:  # or another server was quicker, and its context is as good
                raise


def _sums(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != SUMS_FILE}
