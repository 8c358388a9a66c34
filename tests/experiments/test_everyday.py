"""Measures of the everyday model, by hand on tiny cases, and of made-up answers to a small collection."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from datasets.manifests import Item, ManifestError, Spans
from datasets.vocabulary import Vocabulary, everyday_vocabulary
from experiments.everyday.__main__ import app
from experiments.everyday.calibration import (
    answer_calibration,
    binned_error,
    known_columns,
    pair_calibration,
)
from experiments.everyday.clips import SplitClips, answers, open_everyday, read_collections, read_items
from experiments.everyday.elsewhere import table_of_files
from experiments.everyday.empty_clips import (
    NUM_BLACK,
    NUM_NOISE,
    NUM_SILENCE,
    black_pictures,
    noise_pictures,
    silences,
)
from experiments.everyday.measure import MeasureRow, Measures, measure, to_json
from experiments.everyday.report import to_text
from experiments.everyday.restricted import (
    LabelMeaning,
    RestrictedTask,
    by_label,
    is_right,
    meanings,
    restricted_tasks,
)
from experiments.everyday.shared_space import found_table, found_tables, matching
from experiments.everyday.teachers import cut_window
from export.model_card import fill_card
from media import ClipSpec
from media.clip import Clip, Modality
from runtime.scores import Scores
from tests.made_media import jpeg_bytes, moving_frames, tone, write_clip
from training.distillation.scores import agreement, precision_against
from verification.scored_model import ScoredModel

LABELS = {"dog": (200.0, (220, 30, 30)), "guitar": (3_000.0, (30, 30, 220))}
"""Tone in Hz and colour of each label."""
SAID = {"dog": ("dog", "dalmatian"), "guitar": ("guitar", "electric-guitar-video")}
SURE, UNSURE = 3.0, -6.0


class MadeUpPredictor:
    """Says of a tone and of a colour which label they are; of anything else nothing."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def logits(self, modality: Modality, clips: Sequence[Clip]) -> np.ndarray:
        return self.outputs(modality, clips)["logits"]

    def outputs(self, modality: Modality, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        logits = np.full((len(clips), len(self.vocabulary)), UNSURE, np.float32)
        embedding = np.full((len(clips), 3), 0.0, np.float32)
        for row, unit, clip in zip(logits, embedding, clips, strict=True):
            heard = None if modality == Modality.VIDEO else _heard(clip)
            seen = None if modality == Modality.AUDIO else _seen(clip)
            for place, label in enumerate(LABELS):
                if heard == label:
                    row[self.vocabulary.index[SAID[label][0]]] = SURE
                if seen == label:
                    row[self.vocabulary.index[SAID[label][1]]] = SURE
                unit[place] = label in (heard, seen)
            unit[2] = not unit.any()
        return {"logits": logits, "embedding": embedding, "features": embedding}


def _heard(clip: Clip) -> str | None:
    assert clip.audio is not None
    loudness = clip.audio.mean(0)
    if clip.is_silent or loudness.max() - np.median(loudness) < 4:
        return None
    return "dog" if loudness.argmax() < len(loudness) / 2 else "guitar"


def _seen(clip: Clip) -> str | None:
    assert clip.video is not None
    red, _, blue = clip.video.reshape(-1, 3).mean(0)
    return None if abs(red - blue) < 60 else "dog" if red > blue else "guitar"


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return everyday_vocabulary()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dogs of ESC-10 and two guitars, each with two pictures; of Caltech-101 a pizza and a dalmatian."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for label, (hz, colour) in LABELS.items():
        for i in range(2):
            sound, picture = f"{label}{i}.wav", f"{label}{i}.jpg"
            (folder / "sights_sounds").mkdir(exist_ok=True)
            write_clip(folder / "sights_sounds" / sound, waveform=tone(0.8, hz=hz + 10 * i))
            _write_picture(folder / "sights_sounds" / picture, colour)
            origin = "ESC-10 1-1-A" if label == "dog" else "FSDKaggle2018 1"
            folder_of = {"dog": "dalmatian", "guitar": "electric_guitar"}[label]
            rows.append((sound, "audio", label, "val", origin))
            rows.append((picture, "image", label, "val", f"Caltech-101 {folder_of}/{i}.jpg"))
    _write_manifest(folder / "sights_sounds", rows)
    (folder / "caltech101").mkdir()
    for name, colour in (("pizza", (128, 128, 128)), ("dalmatian", (220, 30, 30))):
        _write_picture(folder / "caltech101" / f"{name}.jpg", colour)
    _write_manifest(
        folder / "caltech101",
        [(f"{x}.jpg", "image", x, "val", f"Caltech-101 {x}/1.jpg") for x in ("pizza", "dalmatian")],
    )
    return folder


def _write_picture(path: Path, colour: tuple[int, int, int]) -> None:
    path.write_bytes(jpeg_bytes(np.full((48, 64, 3), colour, np.uint8)))


def _write_manifest(folder: Path, rows: Sequence[Sequence[str]]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "modality", "label", "split", "source"), *rows])


@pytest.fixture(scope="module")
def model(vocabulary: Vocabulary, spec: ClipSpec) -> ScoredModel:
    return ScoredModel(
        predictor=MadeUpPredictor(vocabulary),
        spec=spec,
        targets=dict(vocabulary.index),
        spans=Spans.EACH,
        scores=Scores.SIGMOID,
    )


@pytest.fixture(scope="module")
def measures(model: ScoredModel, data: Path) -> Measures:
    return measure(model, data, "val")


def _row(measures: Measures, name: str) -> MeasureRow:
    (found,) = (row for row in measures.rows if row.name.startswith(name))
    return found


def test_made_up_answers_are_right(measures: Measures) -> None:
    assert _row(measures, "ESC-10").value == 1
    assert _row(measures, "instruments, of 2").value == 1
    assert _row(measures, "sights, of 2").value == 1
    assert _row(measures, "clean: fused").value == 1
    assert _row(measures, "clean: fused").count == 8


def test_pictures_of_what_was_not_said_are_wrong(measures: Measures) -> None:
    row = _row(measures, "Caltech, all, of 2")
    assert row.value == 0.5
    assert row.details["labels"] == {
        "dalmatian": {"accuracy": 1.0, "clips": 1},
        "pizza": {"accuracy": 0.0, "clips": 1},
    }


def test_noise_for_the_picture_leaves_the_sound(measures: Measures) -> None:
    assert _row(measures, "noise for picture: fused").value == 1
    assert _row(measures, "noise for picture: audio alone").value == 1
    assert _row(measures, "noise for picture: video alone").value == 0


def test_noisy_sound_leaves_the_picture(measures: Measures) -> None:
    assert _row(measures, "noisy sound: fused").value == 1
    assert _row(measures, "noisy sound: video alone").value == 1


def test_nothing_is_said_of_nothing(measures: Measures) -> None:
    found = {row.name: row for row in measures.rows if row.section == "no label above 0.5"}
    assert {name: row.count for name, row in found.items()} == {
        "noise for a picture": NUM_NOISE,
        "black picture": NUM_BLACK,
        "silence": NUM_SILENCE,
        "silence, but for Silence": NUM_SILENCE,
        "noise and silence, fused": NUM_NOISE,
        "noise and silence, fused, but for Silence": NUM_NOISE,
    }
    assert all((row.value, row.details["above"]) == (1, {}) for row in found.values())


class _SaysSilence(MadeUpPredictor):
    def outputs(self, modality: Modality, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        found = super().outputs(modality, clips)
        quiet = [clip.audio is not None and clip.is_silent for clip in clips]
        found["logits"][quiet, self.vocabulary.index["silence"]] = SURE
        return found


def test_silence_may_be_called_silence(model: ScoredModel, vocabulary: Vocabulary, data: Path) -> None:
    found = measure(replace(model, predictor=_SaysSilence(vocabulary)), data, "val")
    rows = {row.name: row for row in found.rows if row.section == "no label above 0.5"}
    assert (rows["silence"].value, rows["silence"].details["above"]) == (0, {"silence": NUM_SILENCE})
    assert rows["silence, but for Silence"].value == 1
    assert rows["noise for a picture"].value == 1


def test_sounds_find_pictures(measures: Measures) -> None:
    """2 dogs match 3 of 5 pictures, 2 guitars match 2, and the pizza none."""
    row = _row(measures, "sound finds picture")
    assert row.details["within_matches"] == 1
    assert row.value == pytest.approx((0.3 + 0.3 + 0.2 + 0.2) / 4)
    assert row.details["best_possible"] == row.value
    assert row.details["keys"] == 5


def test_measures_as_json_and_text(measures: Measures) -> None:
    found = json.loads(json.dumps(to_json(measures, {"split": "val"})))
    assert found["split"] == "val"
    assert len(found["rows"]) == len(measures.rows)
    text = to_text(measures)
    assert max(map(len, text.splitlines())) <= 80
    assert "ESC-10, of 1" in text


def test_text_shows_teachers_and_what_is_wanted() -> None:
    row = MeasureRow(
        section="restricted", name="ESC-10, of 10", count=80, value=0.95, least=0.96,
        teachers={"mn04": 0.94, "joined": 0.97},
    )  # fmt: skip
    error = MeasureRow(section="calibration error", name="audio", count=9, value=0.012, most=0.05)
    lines = to_text(Measures([row, error], ["YAMNet: not there"])).splitlines()
    assert lines[0].split() == ["restricted", "n", "model", "mn04", "joined"]
    assert lines[1].split() == ["ESC-10,", "of", "10", "80", "0.950", "0.940", "0.970", ">=0.96", "no"]
    assert lines[4].split() == ["audio", "9", "0.012", "<=0.05"]
    assert lines[-1] == "- YAMNet: not there"


@pytest.mark.parametrize(("scores", "right"), [((0.1, 0.9, 0.2), True), ((0.6, 0.2, 0.6), False)])
def test_right_is_above_all_others(scores: tuple[float, ...], right: bool) -> None:
    """`a` means columns 0 and 1, `b` column 2; an equal score is wrong."""
    labels = {"a": _meaning(0, 1), "b": _meaning(2)}
    assert is_right(np.array([scores]), ["a"], labels).tolist() == [right]


def test_labels_that_mean_the_same_are_both_right() -> None:
    labels = {"crocodile": _meaning(0), "crocodile_head": _meaning(0), "crab": _meaning(1)}
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    right = is_right(scores, ["crocodile_head", "crocodile"], labels)
    assert right.tolist() == [True, False]
    assert by_label(right, ["crocodile_head", "crocodile"])["crocodile"] == {"accuracy": 0.0, "clips": 1}


def _meaning(*places: int) -> LabelMeaning:
    return LabelMeaning(frozenset(places), frozenset(places))


def test_labels_that_mean_nothing_are_no_answers(vocabulary: Vocabulary) -> None:
    found = meanings(vocabulary, "caltech101", ["background_google", "pizza"], ["video"])
    assert {x: sorted(y.possible) for x, y in found.items()} == {"pizza": [vocabulary.index["pizza"]]}


def test_calibration_error_by_hand() -> None:
    """One bin holds .9 and .9, of which one is true: |1.8 - 1|; another .1, false: .1; of 3 pairs."""
    found = binned_error(np.array([0.9, 0.9, 0.1]), np.array([True, False, False]))
    assert found == pytest.approx((0.8 + 0.1) / 3)
    with pytest.raises(ValueError, match="0 pairs"):
        binned_error(np.array([]), np.array([], bool))


def test_truth_of_labels_that_is_unknown_is_not_counted(vocabulary: Vocabulary) -> None:
    """A dog barks, so that `dog` and `bark` are true; that it yips is unknown, that it crows is false."""
    labels = meanings(vocabulary, "sights_sounds", ["dog", "rooster"], ["audio"])
    task = RestrictedTask("dogs", "audio", [0], ["dog"], labels)
    certain, wrong = known_columns(task, "dog", vocabulary)
    assert {vocabulary.labels[i].id for i in certain} == {"dog", "bark"}
    assert {vocabulary.labels[i].id for i in wrong} == {"crowing", "chicken"}
    said = np.full((1, len(vocabulary)), 0.0)
    said[0, vocabulary.index["dog"]] = said[0, vocabulary.index["bark"]] = 1.0
    said[0, vocabulary.index["crowing"]] = 0.4
    error, count = pair_calibration([(task, said)], vocabulary)
    assert (error, count) == (pytest.approx(0.4 / 4), 4)
    assert answer_calibration([(task, said)]) == 0


def test_precision_by_hand() -> None:
    """Of the 2 nearest to each query, 1 and 0 match; equally near keys count as wrong first."""
    near = np.array([[0.9, 0.8, 0.1], [0.5, 0.5, 0.5]])
    matches = np.array([[True, False, True], [False, False, True]])
    found = found_table(near, matches, num_found=2)
    assert (found.precision, found.best_possible) == (0.25, 0.75)
    assert found.chance == pytest.approx(0.5)
    assert found.within_matches == pytest.approx((0.5 + 0) / 2)


def test_nothing_to_find() -> None:
    with pytest.raises(ValueError, match="no sound matches"):
        found_tables(np.ones((1, 2)), np.ones((1, 2)), np.zeros((1, 1), bool))


def test_bridged_pictures_of_another_collection_match(vocabulary: Vocabulary) -> None:
    def item(modality: str, label: str, collection: str) -> Item:
        return Item(Path("x"), modality, (label,), "val", collection=collection)

    sounds = [item("audio", "saxophone", "sights_sounds"), item("audio", "violin", "sights_sounds")]
    pictures = [item("video", "saxophone", "caltech101"), item("video", "pizza", "caltech101")]
    assert matching(sounds, pictures, vocabulary).tolist() == [[True, False], [False, False]]


def test_precision_against_teachers_by_hand() -> None:
    """Label 0 is sure in 3 of 4 clips, of which the model puts a wrong one second; label 1 in too few."""
    teachers = np.array([[0.9, 0.9], [0.1, 0.0], [0.6, 0.0], [0.5, 0.0]])
    said = np.array([[0.9, 0.0], [0.8, 0.1], [0.7, 0.2], [0.6, 0.9]])
    found = precision_against(said, teachers)
    assert found == (pytest.approx((1 + 2 / 3 + 3 / 4) / 3), 1)
    assert precision_against(said[:2], teachers[:2]) is None
    assert agreement(said, teachers) == 0.75


def test_cut_of_a_window_ends_in_silence(spec: ClipSpec) -> None:
    clip = black_pictures(spec)[0]
    cut = cut_window(np.ones(10, np.float32), clip, spec)
    assert (len(cut), cut.sum()) == (spec.num_samples, 10)


def test_empty_clips(spec: ClipSpec) -> None:
    noise = noise_pictures(spec, seed=0)
    assert all(clip.video is not None and clip.video.shape == spec.video_shape for clip in noise)
    still = [bool((clip.video == clip.video[:1]).all()) for clip in noise if clip.video is not None]
    assert sum(still) == len(still) / 2
    silence = silences(spec, seed=0)
    assert all(clip.audio is not None and clip.audio.shape == spec.audio_shape for clip in silence)


def test_windows_are_averaged_as_probabilities(model: ScoredModel, data: Path) -> None:
    split = read_collections(data, "val", model.spec)
    (first, *_), chosen = split.windows, split.chosen("sights_sounds", "audio")
    found = answers(model.predictor, Modality.AUDIO, [split.windows[i] for i in chosen])
    assert len(first) == 1
    dog = everyday_vocabulary().index["dog"]
    assert found.probabilities[0, dog] == pytest.approx(1 / (1 + np.exp(-SURE)))
    assert np.allclose(np.linalg.norm(found.embedding, axis=1), 1)


def test_split_that_is_not_there(model: ScoredModel, data: Path) -> None:
    with pytest.raises(ManifestError, match="no split 'test'"):
        read_collections(data, "test", model.spec)


def test_model_of_other_labels(checkpoint: Path, vocabulary: Vocabulary) -> None:
    with pytest.raises(ValueError, match="not the 1581 of the label table"):
        open_everyday(checkpoint, vocabulary)


def test_command_line(
    model: ScoredModel, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.everyday.clips.open_model", lambda *_: model)
    out, scores = tmp_path / "out.json", tmp_path / "scores.json"
    done = CliRunner().invoke(
        app, ["model", "--data", str(data), "--json", str(out), "--scores", str(scores)]
    )
    assert done.exit_code == 0, done.output
    assert "ESC-10, of 1" in done.stdout
    assert json.loads(out.read_text())["model"] == "model"
    rows = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    stored = json.loads(scores.read_text())
    assert stored["esc10"]["top1"] == rows["ESC-10, of 1"]["value"]
    assert stored["esc10"]["clips"] == rows["ESC-10, of 1"]["count"]
    assert stored["pairs_fused"]["top1"] == rows["clean: fused"]["value"]
    assert stored["video_calibration"].keys() == {"clips", "calibration_error"}
    card = fill_card(
        "<!-- scores -->", metrics=stored, manifest={"training": {}, "model": {"num_parameters": 1}}
    )
    assert "| sounds of ESC-10 alone |" in card
    assert "| sounds found by a picture |" in card
    assert "looked at once" not in done.stderr
    assert "looked at once" in CliRunner().invoke(app, ["m", "--data", str(data), "--split", "test"]).stderr


def test_table_of_files(model: ScoredModel, vocabulary: Vocabulary, data: Path, tmp_path: Path) -> None:
    film = write_clip(tmp_path / "film.mp4", waveform=tone(0.8, hz=200), frames=moving_frames(0.8))
    (tmp_path / "none.wav").write_bytes(b"none")
    files = [data / "sights_sounds" / "dog0.jpg", film, tmp_path / "none.wav"]
    lines = table_of_files(model, vocabulary, files).splitlines()
    assert lines[0] == "| file | sound says | picture says | both say |"
    assert lines[2] == "| dog0.jpg |  | Dalmatian 95% |  |"
    cells = [cell.strip() for cell in lines[3].split("|")]
    assert (cells[1], cells[2], cells[4]) == ("film.mp4", "Dog 95%", "Dog 95%")
    assert cells[3].startswith("nothing it is sure of (best: ")
    assert lines[4].startswith("| none.wav | (")


def test_tasks_of_the_real_collections(shared_dir: Path, vocabulary: Vocabulary) -> None:
    """How many labels each task has, of all clips of the real collections, none of which is decoded."""
    items, labels = read_items(shared_dir / "data", "test")
    tasks = restricted_tasks(SplitClips(items, [[] for _ in items], labels, []), vocabulary)
    assert [task.name for task in tasks][:3] == [
        "ESC-10, of 10",
        "instruments, of 20",
        "instruments, drone, of 21",
    ]
    assert len(tasks[0].clips) == 80
