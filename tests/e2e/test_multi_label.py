"""A model of several labels per clip, from its checkpoint through export to runtime and HTTP: labels do not
compete."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from scipy.special import expit

from datasets.manifests import Item
from evaluation.clip_predictions import PredictionPlan, StreamPredictions, predict_clips
from evaluation.stream_inputs import SERVED_STREAMS
from evaluation.views import ViewPlan, view_starts
from export.checkpoint_scores import learned_scores
from media import ClipSpec, Modality, probe, read_clips
from media.pooling import window_weights
from models.weights import load_checkpoint
from runtime import Scores, StreamResult, TimeRange, Zorro, read_bundle
from service.app import create_app
from service.schemas import ModelDescription, ModelDescriptions
from service.settings import Settings
from tests.made_media import moving_frames, tone, write_clip
from tests.service.ready_client import ready_client

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(sigmoid_bundle: Path) -> Zorro:
    return Zorro.open(sigmoid_bundle)


@pytest.fixture(scope="module")
def client(sigmoid_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(bundles=sigmoid_bundle.parents[1], temporary_dir=tmp_path_factory.mktemp("uploads"))
    with ready_client(create_app(settings)) as client:
        yield client


def _scores(answer: StreamResult) -> list[float]:
    """In the order of the logits."""
    found = {label.id: label.score for label in answer.labels}
    return [found[name] for name in "abcd"]


def _ask(client: TestClient, clip: Path, **fields: str) -> list[dict[str, Any]]:
    answer = client.post(
        "/v1/classify", files={"file": ("clip", clip.read_bytes())}, data={"top_k": "9"} | fields
    )
    return answer.json()["data"]


def test_the_bundle_says_what_the_recipe_said(
    sigmoid_checkpoint: Path, checkpoint: Path, sigmoid_bundle: Path, bundle: Path
) -> None:
    assert (
        learned_scores(load_checkpoint(sigmoid_checkpoint))
        == read_bundle(sigmoid_bundle).scores
        == Scores.SIGMOID
    )
    assert learned_scores(load_checkpoint(checkpoint)) == read_bundle(bundle).scores == Scores.SOFTMAX


def test_each_window_has_the_sigmoids_of_its_logits(model: Zorro, film: Path) -> None:
    result = model.classify(film, top_k=9)
    clips = list(read_clips(film, model.bundle.clip_spec))
    for modality in Modality:
        expected = expit(model.logits(modality, clips))
        got = np.array([_scores(window.streams[modality]) for window in result.windows])
        np.testing.assert_allclose(got, expected, rtol=1e-5)
        assert (np.abs(got.sum(1) - 1) > 0.1).all(), "they do not share one probability"


def test_the_whole_is_the_mean_of_probabilities(model: Zorro, film: Path) -> None:
    whole, clips = model.classify(film, top_k=9).whole, list(read_clips(film, model.bundle.clip_spec))
    for modality in Modality:
        weights = window_weights(clips, modality)
        expected = (expit(model.logits(modality, clips)) * weights[:, None]).sum(0) / weights.sum()
        np.testing.assert_allclose(_scores(whole[modality]), expected, rtol=1e-5)


def test_labels_are_sorted_cut_and_left_out_by_their_own_probability(model: Zorro, song: Path) -> None:
    every = model.classify(song, top_k=9).whole["audio"].labels
    assert [x.score for x in every] == sorted((x.score for x in every), reverse=True)
    assert model.classify(song, top_k=2).whole["audio"].labels == every[:2]
    assert model.classify(song, top_k=9, threshold=every[1].score).whole["audio"].labels == every[:2]


@pytest.mark.parametrize("scope", ["clip", "asset"])
def test_http_answers_as_the_runtime_does(client: TestClient, model: Zorro, film: Path, scope: str) -> None:
    result = model.classify(film, top_k=9)
    wanted = [window.streams for window in result.windows] if scope == "clip" else [result.whole]
    for row in _ask(client, film, scope=scope):
        scores = {x["id"]: x["score"] for x in row["labels"]}
        np.testing.assert_allclose(
            [scores[x] for x in "abcd"], _scores(wanted[row["index"]][row["modality"]]), rtol=1e-5
        )
        assert abs(sum(scores.values()) - 1) > 0.1


def test_models_say_how_scores_come_about_as_is_described(client: TestClient) -> None:
    body = client.get("/v1/models").json()
    assert body["data"][0]["scores"] == "sigmoid"
    assert ModelDescriptions.model_validate(body).model_dump(mode="json", exclude_unset=True) == body, (
        "nothing is left out of the description"
    )
    ModelDescription.model_validate(client.get("/v1/models/several").json())


def _evaluated(model: Zorro, item: Item, spec: ClipSpec, *, num_windows: int) -> dict[str, StreamPredictions]:
    views = ViewPlan(num_windows=num_windows)
    plan = PredictionPlan(views=views, streams=SERVED_STREAMS, sigmoid=True)
    return predict_clips(model, [item], spec, plan).clean


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_what_is_served_is_what_is_evaluated(model: Zorro, spec: ClipSpec, kind: str, tmp_path: Path) -> None:
    """Of two whole windows: evaluation's two views of them, averaged."""
    media = (
        {"waveform": tone(1.28) * np.linspace(0.2, 1, 20_480, dtype=np.float32)}
        if kind == "audio"
        else {"frames": moving_frames(1.28, size=(32, 32))}
    )
    path = write_clip(tmp_path / ("a.wav" if kind == "audio" else "a.mp4"), **media)
    evaluated = _evaluated(model, Item(path, kind, ("a", "b"), "test"), spec, num_windows=2)
    result = model.classify(path, top_k=9)
    assert len(result.windows) == 2
    np.testing.assert_allclose(_scores(result.whole[kind]), evaluated[kind].scores[0], rtol=1e-5)
    windows = [_scores(window.streams[kind]) for window in result.windows]
    assert np.abs(windows[0] - evaluated[kind].scores[0]).max() > 1e-4, (
        "the windows differ, so that averaging shows"
    )


def test_one_view_of_a_film_is_served_by_all_streams_as_evaluated(
    model: Zorro, spec: ClipSpec, film: Path
) -> None:
    item = Item(film, "both", ("a", "b"), "test")
    (start,) = view_starts(item, probe(film).duration_seconds, spec, 1)
    time_range = TimeRange(start_seconds=start, end_seconds=start + spec.window_seconds)
    whole = model.classify(film, top_k=9, time_range=time_range).whole
    for name, answers in _evaluated(model, item, spec, num_windows=1).items():
        np.testing.assert_allclose(_scores(whole[name]), answers.scores[0], rtol=1e-5)


def test_served_by_softmax_it_would_not_be_what_is_evaluated(
    bundle: Path, spec: ClipSpec, film: Path
) -> None:
    """The twin: the same graphs in a bundle of labels that compete."""
    competing, item = Zorro.open(bundle), Item(film, "both", ("a", "b"), "test")
    evaluated = _evaluated(competing, item, spec, num_windows=1)["audio"].scores[0]
    assert np.abs(np.array(_scores(competing.classify(film, top_k=9).whole["audio"])) - evaluated).max() > 0.1
