"""Settings: one table, from the environment with the prefix ZORRO_."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """All that an operator can set."""

    model_config = SettingsConfigDict(env_prefix="ZORRO_", extra="forbid", frozen=True)

    bundles: Path = Field(default=Path("bundles"), description="model repository: a folder of NAME/VERSION/ bundles")
    default_model: str | None = Field(default=None, description="model that answers when none is named; default the first")
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on")
    max_body_bytes: int = Field(default=200_000_000, ge=1, description="largest request body")
    max_duration_seconds: float = Field(default=600.0, gt=0, description="longest media")
    max_pixels: int = Field(default=4096 * 2304, ge=1, description="most pixels of a video frame")
    max_streams: int = Field(default=8, ge=1, description="most streams of a file")
    max_windows: int = Field(default=1000, ge=1, description="most windows of one request")
    num_threads: int | None = Field(default=None, ge=1, description="threads of one inference; default all cores")
    num_workers: int = Field(default=2, ge=1, description="requests that are decoded and answered at a time")
    max_waiting: int = Field(default=32, ge=0, description="requests that may wait for a worker; more get `overloaded`")
    providers: tuple[str, ...] = Field(
        default=("CPUExecutionProvider",), description="ONNX Runtime's execution providers, in order of preference"
    )
    allow_fallback: bool = Field(
        default=False, description="take another provider where one that was asked for does not run"
    )
    temporary_dir: Path | None = Field(default=None, description="where uploads are kept while in use; default the system's")
