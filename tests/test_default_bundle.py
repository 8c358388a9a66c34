"""The bundle that is shipped opens, proves itself on this machine, and knows what it says it knows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.vocabulary import everyday_vocabulary
from media import Modality
from models.weights import load_checkpoint
from runtime import Zorro
from runtime.signature import output_names
from tests.made_media import write_clip

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "bundles" / "everyday" / "1"
MAX_BYTES = 90_000_000  # it lives in git
WORDS = ROOT / "bundles" / "grid-words" / "1"
VARIANTS = [
    (BUNDLE, "fp32"),
    *((WORDS, name) for name in ("fp32", "fp16", "int8-cpu", "int8-qdq")),
]


@pytest.fixture(scope="module")
def zorro() -> Zorro:
    return Zorro.open(BUNDLE)


@pytest.mark.parametrize(
    ("path", "variant"), VARIANTS, ids=[f"{path.parent.name}-{name}" for path, name in VARIANTS]
)
def test_it_proves_itself_here(path: Path, variant: str) -> None:
    if variant == "int8-qdq" and not has_vnni():
        pytest.skip(
            "int8-qdq is for GPUs; a processor without VNNI adds its products in 16 bits, which overflow"
        )
    report = Zorro.open(path, variant=variant).self_test()
    assert report.max_abs_error.keys() == report.min_cosine.keys() == set(Modality)
    assert min(report.min_cosine.values()) >= 0.999


def has_vnni() -> bool:
    """Whether the processor adds products of 8-bit numbers in 32 bits."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return bool(flags & {"avx512_vnni", "avx_vnni", "asimddp"})


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in BUNDLE.rglob("*") if path.is_file()) < MAX_BYTES


@pytest.mark.parametrize("path", [BUNDLE, WORDS], ids=lambda path: path.parent.name)
def test_its_proofs_are_on_record(path: Path) -> None:
    for name, variant in Zorro.open(path).bundle.manifest["variants"].items():
        assert variant["purity"]["fused"]["audio_logits"] == ["audio"]
        assert variant["purity"]["fused"]["video_logits"] == ["video"]
        assert [x["name"] for x in variant["graphs"]["fused"]["outputs"]] == output_names(Modality.FUSED)
        for report in variant["parity"]["golden"] + variant["parity"]["real"]:
            assert report["max_abs_error"] < (1e-4 if name == "fp32" else 0.05 if name == "fp16" else 1.5)
            assert report["min_cosine"] > 0.99
            assert {1, 8} <= set(report["batch_sizes"])
        assert min(report["top1_agreement"] for report in variant["parity"]["real"]) >= (
            1 if name == "fp32" else 0.97
        )


def test_its_scores_are_what_was_asked_of_it(zorro: Zorro) -> None:
    """Scores of the test split, which `python -m experiments.everyday` gave for these graphs."""
    scores = zorro.bundle.manifest["metrics"]
    wanted = {"esc10": 0.93, "instruments": 0.85, "sights": 0.92, "pairs_fused": 0.98}
    assert {name: least for name, least in wanted.items() if scores[name]["top1"] < least} == {}
    assert scores["pairs_fused"]["top1"] >= max(scores["pairs_audio"]["top1"], scores["pairs_video"]["top1"])


def test_it_knows_the_table_and_says_when_it_does_not(zorro: Zorro) -> None:
    wanted = everyday_vocabulary().bundle_labels()
    assert [(x.id, x.label, x.parents) for x in zorro.bundle.labels] == [
        (x["id"], x["label"], tuple(x["parents"])) for x in wanted
    ]
    assert zorro.bundle.decision is not None
    assert zorro.bundle.decision.known_labels_only
    assert min(zorro.bundle.decision.threshold_of(modality) for modality in Modality) > 0


def test_silence_and_a_grey_picture_are_nothing_it_is_sure_of(zorro: Zorro, tmp_path: Path) -> None:
    grey = write_clip(
        tmp_path / "grey.mp4",
        waveform=np.zeros(5 * 16_000, np.float32),
        frames=[np.full((64, 64, 3), 8, np.uint8)] * 50,
    )
    whole = zorro.classify(grey).whole
    assert not whole["video"].is_sure
    assert {x.id for answer in whole.values() for x in answer.labels} <= {"silence"}


def test_no_tensor_is_a_teachers(shared_dir: Path) -> None:
    teacher = torch.load(shared_dir / "data" / "teachers" / "efficientat_mn04_as.pt", weights_only=True)
    theirs = {(tuple(x.shape), float(x.float().sum())): x for x in teacher.values() if x.dim() > 0}
    ours = load_checkpoint(BUNDLE / "checkpoint").model.state_dict()
    found = [
        name
        for name, x in ours.items()
        if (y := theirs.get((tuple(x.shape), float(x.float().sum())))) is not None and torch.equal(x, y)
    ]
    assert found == []


def test_the_card_names_data_and_licences(zorro: Zorro) -> None:
    card = (BUNDLE / "MODEL_CARD.md").read_text()
    for row in zorro.bundle.manifest["about"]["data"]:
        assert row["source"] in card
        assert row["licence"] in card


def test_words_are_heard_and_seen_by_one_who_was_asked_for_little() -> None:
    """Scores of the test split of GRID's talker 1: guessing gives 0.19."""
    manifest = Zorro.open(WORDS).bundle.manifest
    wanted = {"audio": 0.85, "video": 0.75, "fused": 0.9}
    assert {
        name: least for name, least in wanted.items() if manifest["metrics"][name]["within_groups"] < least
    } == {}
    assert manifest["metrics"]["video"]["groups"]["digit"]["accuracy"] > 0.77, "a linear model's"
    assert {label.id for label in Zorro.open(WORDS).bundle.labels} >= {"bin", "blue", "at", "f", "two", "now"}


@pytest.mark.parametrize(
    ("file", "label"), [("esc10_4-182395-A.ogg", "dog"), ("esc10_4-184434-A.ogg", "sneeze")]
)
def test_real_recordings_are_recognised(zorro: Zorro, shared_dir: Path, file: str, label: str) -> None:
    sound = zorro.classify(shared_dir / "data" / "sights_sounds" / "audio" / file).whole["audio"]
    assert sound.is_sure
    assert label in [x.id for x in sound.labels]
