"""A collection of every kind of file, and a bundle that is not the one that was exported, served."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.made_media import jpeg_bytes, moving_frames, tone, write_clip

ROWS = (
    "path,modality,label,split,start_seconds,end_seconds",
    "film.mp4,both,a,test,,",  # 2 s: three windows of 0.64 s, and what is left is too short to count
    "film.mp4,both,b,test,0.5,0.7",  # one window around it
    "film.mp4,both,b,train,0.5,0.7",
    "song.wav,audio,c,test,,",  # 1 s: two windows
    "mute.mp4,both,d,test,,",  # 1 s: two windows
    "still.jpg,image,,test,,",
    "broken.mp4,both,a,test,,",
)


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films, a sound, pictures, and a file that is none; with and without labels and spans."""
    folder = tmp_path_factory.mktemp("collection")
    write_clip(folder / "film.mp4", waveform=tone(2.0), frames=moving_frames(2.0, size=(32, 32)))
    write_clip(folder / "song.wav", waveform=tone(1.0, hz=900))
    write_clip(folder / "mute.mp4", frames=moving_frames(1.0, size=(32, 32)))
    (folder / "still.jpg").write_bytes(jpeg_bytes(moving_frames(0.04)[0]))
    (folder / "broken.mp4").write_bytes(b"nothing of a film")
    (folder / "manifest.csv").write_text("\n".join(ROWS) + "\n")
    return folder


@pytest.fixture(scope="session")
def another(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is sound in itself, its golden answers too, and not the one that was exported."""
    from export.bundle_graphs import write_golden
    from runtime import read_bundle
    from tests.tiny_bundle import graphs_in
    from tests.verification.damaged_bundles import change_layer, damaged_bundle

    def damage(copy: Path) -> None:
        change_layer(copy)
        write_golden(copy, read_bundle(bundle).clip_spec, graphs_in(copy / "fp32"))

    return damaged_bundle(bundle, tmp_path_factory.mktemp("another"), damage)


@pytest.fixture(scope="package")
def other_port(another: Path) -> Iterator[int]:
    """Port of a server of `another`."""
    from runtime import read_bundle
    from verification.server_process import serve_bundle

    with serve_bundle(read_bundle(another), "fp32", num_clients=2) as port:
        yield port
