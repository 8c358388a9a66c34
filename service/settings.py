"""Settings: one table, read from the environment (ZORRO_*).

`zorro serve --help` and docs/settings.md show it.
"""

from pathlib import Path
from tempfile import gettempdir

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from runtime import WeightMemory
from runtime.providers import CPU

from .cores import available_cores

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - each server has a private folder below it


class Settings(BaseSettings):
    """All that an operator can set."""

    model_config = SettingsConfigDict(env_prefix="ZORRO_", extra="forbid", frozen=True)

    bundles: Path = Field(default=Path("bundles"), description="folder of bundles, each in NAME/VERSION/")
    default_model: str | None = Field(
        default=None,
        description="model that answers if a request names none; default everyday, else the first",
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on")
    max_inside: int = Field(
        default=64, ge=1, description="most requests in work or waiting; further ones get `overloaded`"
    )
    request_timeout_seconds: float = Field(
        default=60.0, gt=0, description="longest time for an answer; a client may ask for less"
    )
    max_body_bytes: int = Field(default=200_000_000, ge=1, description="largest request body")
    max_duration_seconds: float = Field(default=600.0, gt=0, description="longest media")
    max_pixels: int = Field(default=4096 * 2304, ge=1, description="most pixels of a picture or video frame")
    max_streams: int = Field(default=8, ge=1, description="most streams of a file")
    max_frames_per_second: float = Field(default=240.0, gt=0, description="most video frames per second")
    max_windows: int = Field(default=1000, ge=1, description="most windows of one request")
    num_decode_workers: int | None = Field(
        default=None, ge=1, description="decode processes; default one per core"
    )
    max_decode_cpu_seconds: float = Field(
        default=30.0, gt=0, description="most processor time to decode 16 windows of a file"
    )
    max_decode_memory_bytes: int = Field(
        default=1_000_000_000, ge=1, description="most memory of a decode process"
    )
    max_decode_growth_bytes: int = Field(
        default=100_000_000,
        ge=1,
        description="a decode process that has grown by more than this is replaced",
    )
    decode_timeout_seconds: float = Field(
        default=60.0, gt=0, description="longest time to decode 16 windows of a file"
    )
    num_sessions: int | None = Field(
        default=None,
        ge=1,
        description="batches at the same time; default one per core on the CPU, 1 on other providers",
    )
    num_threads: int | None = Field(
        default=None,
        ge=1,
        description="threads of a batch that runs alone; default one per core",
    )
    memory: WeightMemory = Field(
        default=WeightMemory.FAST,
        description="fast: weights packed for the CPU; low: weights mapped from their file, a little slower",
    )
    max_batch_size: int = Field(default=8, ge=1, description="most windows of one batch")
    max_queue_windows: int = Field(
        default=1024, ge=1, description="most windows waiting per graph; further ones get `overloaded`"
    )
    providers: tuple[str, ...] = Field(
        default=(CPU,), description="ONNX Runtime's execution providers, in order of preference"
    )
    provider_options: dict[str, dict[str, str]] = Field(
        default={},
        description="options of execution providers, as a JSON object by provider; see operating.md",
    )
    engine_cache: Path | None = Field(
        default=None,
        description="folder that keeps TensorRT's engines between starts; default none",
    )
    engine_context: bool = Field(
        default=False,
        description="keep engines as context models with their sha256, which open faster; see operating.md",
    )
    variant: str | None = Field(
        default=None,
        description="variant of every bundle; default what each bundle names for the first provider",
    )
    allow_fallback: bool = Field(
        default=False, description="use another provider where one of them does not run"
    )
    traces_endpoint: str | None = Field(
        default=None,
        description="OTLP address for traces, such as http://localhost:4318/v1/traces; needs the extra otel",
    )
    drain_seconds: float = Field(
        default=2.0, ge=0, description="how long to go on accepting requests after SIGTERM"
    )
    stuck_seconds: float = Field(
        default=60.0, gt=0, description="a batch that runs longer than this makes /livez fail"
    )
    temporary_dir: Path | None = Field(
        default=None, description="folder for uploads while in use; default the system's"
    )
    windows_dir: Path | None = Field(
        default=None,
        description="folder for decoded windows while in use; default shared memory, if there is any",
    )

    @property
    def upload_parent(self) -> Path:
        """Folder for the folder of uploads."""
        return self.temporary_dir or Path(gettempdir())

    @property
    def windows_parent(self) -> Path:
        """Folder for the folder of decoded windows."""
        return self.windows_dir or (SHARED_MEMORY if SHARED_MEMORY.is_dir() else self.upload_parent)

    @property
    def decode_workers(self) -> int:
        """Decode processes."""
        return self.num_decode_workers or available_cores()

    @property
    def sessions(self) -> int:
        """Batches that run at a time."""
        return self.num_sessions or (available_cores() if set(self.providers) == {CPU} else 1)

    @property
    def threads_alone(self) -> int:
        """Threads of a batch that has the server to itself."""
        return self.num_threads or available_cores()

    @property
    def threads_beside(self) -> int:
        """Threads of a batch that runs beside others."""
        return max(1, self.threads_alone // self.sessions)


class ServeCommand(Settings):
    """Serve a folder of bundles over HTTP.

    Every option is an environment variable too: --port is ZORRO_PORT.
    """

    model_config = SettingsConfigDict(
        cli_prog_name="zorro serve", cli_kebab_case=True, cli_implicit_flags=True
    )
