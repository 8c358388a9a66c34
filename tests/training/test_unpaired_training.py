"""Training on made media: it resumes exactly, its losses and metrics are what arithmetic says."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.manifests import Listing, ManifestError, label_table, read_manifest
from datasets.unpaired import load_unpaired
from evaluation.metrics import expected_calibration_error, per_label_accuracy, top_k_accuracy
from media import ClipSpec
from models.attention import Pairing
from models.weights import load_checkpoint
from models.zorro import ZorroModel
from tests.made_media import jpeg_bytes, tone, write_clip
from tests.training.small_runs import CLIP_SPEC, MODEL, train_interrupted
from training.batch import row_target
from training.loop import TrainingOptions, train
from training.losses import distillation, info_nce, soft_cross_entropy
from training.model_config import model_config
from training.ranks import Ranks
from training.recipe import Recipe
from training.schedule import WeightAverage, warmup_cosine
from training.task import Task
from training.tasks import open_task

RECIPE = (
    """
num_steps = {steps}
num_audio = 6
num_video = 6
num_pairs = 3
num_mixed_pairs = 2
num_warmup_steps = 2
evaluate_every = 4
save_every = 2
bfloat16 = false
"""
    + MODEL
    + "drop_path_rate = 0.1\n"
    + CLIP_SPEC
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labels with sound and sight, one with sound alone; train and val."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for split in ("train", "val"):
        for label, hz, colour in (
            ("low", 200, (220, 30, 30)),
            ("high", 3_000, (30, 30, 220)),
            ("hum", 60, None),
        ):
            path = write_clip(folder / f"{split}_{label}.wav", waveform=tone(1.0, hz=hz))
            rows.append((path.name, "audio", label, split))
            if colour:
                (folder / f"{split}_{label}.jpg").write_bytes(
                    jpeg_bytes(np.full((48, 64, 3), colour, np.uint8))
                )
                rows.append((f"{split}_{label}.jpg", "image", label, split))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "modality", "label", "split"), *rows])
    return folder


def _recipe(folder: Path, steps: int) -> Path:
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(steps=steps))
    return path


@pytest.mark.slow
def test_a_run_that_was_killed_resumes_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, 8)
    whole = load_checkpoint(train(recipe, tmp_path / "whole", data_dir=data)).model
    resumed = load_checkpoint(train_interrupted(recipe, tmp_path / "killed", data, at_step=5)).model
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == [4, 8]
    assert (tmp_path / "whole" / "curves.png").stat().st_size > 1000


def test_a_run_of_another_recipe_is_not_continued(data: Path, tmp_path: Path) -> None:
    train(_recipe(tmp_path, 2), tmp_path / "run", data_dir=data)
    with pytest.raises(ValueError, match="another recipe"):
        train(_recipe(tmp_path, 4), tmp_path / "run", data_dir=data)
    with pytest.raises(ValueError, match="holds a run already"):
        train(_recipe(tmp_path, 2), tmp_path / "run", data_dir=data, options=TrainingOptions(resume=False))


def test_a_run_from_before_a_key_was_there_is_continued(data: Path, tmp_path: Path) -> None:
    train(_recipe(tmp_path, 2), tmp_path / "run", data_dir=data)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    del state["recipe"]["spans"]
    torch.save(state, tmp_path / "run" / "state.pt")
    assert train(_recipe(tmp_path, 2), tmp_path / "run", data_dir=data).is_dir()


def _patchwork(data: Path, tmp_path: Path, **changes: object) -> tuple[Task, Recipe]:
    recipe = replace(Recipe.load(_recipe(tmp_path, 2)), **changes)
    listing = Listing.of("made", read_manifest(data / "manifest.csv"), names={"hum": "Humming, low"})
    ranks = Ranks(rank=0, world_size=1, device=torch.device("cpu"))
    return open_task(recipe, listing, tmp_path, tmp_path / "cache", lambda *_: None, ranks), recipe


def test_labels_of_a_patchwork_are_called_by_their_names(data: Path, tmp_path: Path) -> None:
    task, _ = _patchwork(data, tmp_path)
    assert [label["label"] for label in task.labels] == ["high", "Humming, low", "low"]


@pytest.mark.parametrize("multi_label", [False, True])
def test_labels_that_do_not_compete_have_no_temperature(
    multi_label: bool, data: Path, tmp_path: Path
) -> None:
    """A temperature is fitted to a softmax, and would harm a sigmoid."""
    task, recipe = _patchwork(data, tmp_path, multi_label=multi_label)
    model = ZorroModel(model_config(recipe, len(task.labels))).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    temperatures = task.calibrate(model)
    same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (temperatures == {}) == same == multi_label


def test_a_recipe_sets_every_number_of_the_clip_spec(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(
        """
[clip_spec]
sample_rate = 32_000
window_length = 800
fft_length = 1_024
hop_length = 320
first_centre = 1
symmetric_window = true
unit_energy = false
pre_emphasis = 0.97
num_mel_bins = 128
max_hz = 15_000.0
log_offset = 1e-5
frame_size = 224
crop_fraction = 0.875
"""
    )
    recipe = Recipe.load(tmp_path / "recipe.toml")
    spec = recipe.spec
    assert (spec.sample_rate, spec.num_fft_samples, spec.window_seconds) == (32_000, 1_024, 5.12)
    assert spec.centre_of_first_frame == 1
    assert (spec.symmetric_window, spec.unit_energy, spec.pre_emphasis) == (True, False, 0.97)
    assert (spec.audio_shape, spec.frame_size, spec.crop_fraction) == ((512, 128), 224, 0.875)
    assert ClipSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert Recipe(**recipe.to_dict() | {"augmentation": recipe.augmentation}).spec == spec


@pytest.mark.parametrize(("frame_size", "kept"), [(32, 160), (128, 160), (224, 280)])
def test_pictures_are_kept_larger_than_frames(frame_size: int, kept: int, data: Path, tmp_path: Path) -> None:
    items = [item for item in read_manifest(data / "manifest.csv") if item.modality != "audio"]
    material = load_unpaired(items, ClipSpec(frame_size=frame_size), {"low": 0, "high": 1}, tmp_path)
    assert material.video
    assert {video.frames.shape[2:] for video in material.video} == {(kept, kept)}


def test_the_shipped_recipe_reads(tmp_path: Path) -> None:
    recipe = Recipe.load("training/recipes/sights-sounds.toml")
    assert recipe.spec != ClipSpec()
    (tmp_path / "bad.toml").write_text("learning_rat = 1.0")
    with pytest.raises(ValueError, match="learning_rat"):
        Recipe.load(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text("no toml")
    with pytest.raises(ValueError, match="not TOML"):
        Recipe.load(tmp_path / "bad.toml")
    with pytest.raises(ValueError, match="num_pairs"):
        Recipe(num_pairs=99)


def test_manifest_faults(data: Path, tmp_path: Path) -> None:
    assert label_table(read_manifest(data / "manifest.csv"))[1] == {
        "id": "hum",
        "label": "hum",
        "modalities": ["audio"],
    }
    with pytest.raises(ManifestError, match="no manifest"):
        read_manifest(tmp_path / "manifest.csv")
    (tmp_path / "manifest.csv").write_text("path,modality,label,split\ngone.wav,audio,x,train\n")
    with pytest.raises(ManifestError, match="1 of 1 files do not exist"):
        read_manifest(tmp_path / "manifest.csv")
    (tmp_path / "manifest.csv").write_text("path,modality,label,split\na.wav,smell,x,train\n")
    with pytest.raises(ManifestError, match="smell"):
        read_manifest(tmp_path / "manifest.csv")


def test_info_nce_against_arithmetic() -> None:
    a, b = torch.eye(3), torch.eye(3)
    expected = -np.log(np.exp(2) / (np.exp(2) + 2))
    assert float(info_nce(a, b, temperature=0.5, group=torch.arange(3))) == pytest.approx(expected, rel=1e-5)
    same = torch.zeros(3, dtype=torch.long)  # all positives of each other: the best is uniform
    assert float(info_nce(a * 0, b, temperature=0.5, group=same)) == pytest.approx(np.log(3), rel=1e-5)


def test_cross_entropy_weights_and_smoothing() -> None:
    logits, targets = torch.tensor([[2.0, 0.0], [0.0, 5.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    first = np.log(1 + np.exp(-2))
    assert float(soft_cross_entropy(logits, targets, weights=torch.tensor([1.0, 0.0]))) == pytest.approx(
        first
    )
    smooth = 0.9 * first + 0.1 * (first + 2)
    assert float(soft_cross_entropy(logits[:1], targets[:1], label_smoothing=0.2)) == pytest.approx(
        smooth, rel=1e-5
    )


def test_distillation_gives_the_teacher_no_gradient() -> None:
    student, teacher = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    distillation(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_a_rows_target_is_the_mean_of_what_it_reads() -> None:
    pairing = Pairing(torch.tensor([0, 0, -1, 1]), torch.tensor([-1, 0, 0, 0]))
    sound, sight = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    targets, kept = row_target(pairing, sound, sight, torch.tensor([1.0, 0.0]), torch.tensor([1.0]))
    assert targets.tolist() == [[1, 0, 0], [0.5, 0, 0.5], [0, 0, 1], [0, 0, 1]]
    assert kept.tolist() == [1, 1, 1, 1]


def test_schedule_and_average() -> None:
    rates = [
        warmup_cosine(s, num_steps=10, num_warmup_steps=2, peak=1.0, final=0.1) for s in (0, 1, 2, 6, 10, 99)
    ]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.55, 0.1, 0.1])
    model = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, decay=0.99)
    start = float(average.weights["weight"])
    torch.nn.init.constant_(model.weight, 5.0)
    average.update(model)
    decay = 2 / 11
    assert float(average.weights["weight"]) == pytest.approx(decay * start + (1 - decay) * 5)


def test_metrics_against_arithmetic() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    truth = np.array([0, 2, 1, 1])
    assert top_k_accuracy(scores, truth) == 0.75
    assert top_k_accuracy(scores, truth, 2) == 1.0
    error = (abs(0.9 - 1) + abs(0.5 - 1) + abs(0.6 - 0) + abs(0.8 - 1)) / 4
    assert expected_calibration_error(scores, truth, num_bins=1000) == pytest.approx(error)
    assert per_label_accuracy(scores, truth, list("abc"))["b"] == {"accuracy": 0.5, "clips": 2}
