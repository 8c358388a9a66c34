"""Exports without the slow exporter, where what is tested comes after it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import export.bundle_graphs as writer
from media import ClipSpec, Modality
from media.progress import OnProgress
from models import ZorroModel
from models.weights import load_checkpoint
from tests.tiny_bundle import graphs_in


@contextmanager
def known_graphs(bundle: Path, damage: Callable[[Path], None] = lambda _: None) -> Iterator[None]:
    """As long as it lasts, exports of the model whose graphs `bundle` holds take those, which two exports
    would equal.

    Args:
        bundle: with its checkpoint.
        damage: done to the folder of the graphs that were taken.
    """
    known = load_checkpoint(bundle / "checkpoint").model.state_dict()

    def export_graphs(
        model: ZorroModel, _: ClipSpec, folder: Path, *, on_progress: OnProgress
    ) -> dict[Modality, Path]:
        given = model.state_dict()
        assert given.keys() == known.keys()
        assert all(given[name].equal(known[name]) for name in known), "these weights have other graphs"
        shutil.copytree(bundle / "fp32", folder)
        damage(folder)
        on_progress("graphs", 3, 3)
        return graphs_in(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "export_graphs", export_graphs)
        yield
