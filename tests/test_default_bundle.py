"""The bundle that is shipped opens, proves itself on this machine, and knows what it says it knows."""

from pathlib import Path

import pytest

from media import Modality
from runtime import Zorro
from runtime.signature import output_names

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "bundles" / "sights-sounds" / "1"
MAX_BYTES = 30_000_000  # of all its files: they live in git


WORDS = ROOT / "bundles" / "grid-words" / "1"


@pytest.fixture(scope="module")
def zorro() -> Zorro:
    return Zorro.open(BUNDLE)


@pytest.mark.parametrize("path", [BUNDLE, WORDS], ids=lambda path: path.parent.name)
def test_it_proves_itself_here(path: Path) -> None:
    report = Zorro.open(path).self_test()
    assert report.max_abs_error.keys() == set(Modality)
    assert max(report.max_abs_error.values()) < report.tolerance


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in BUNDLE.rglob("*") if path.is_file()) < MAX_BYTES


def test_its_proofs_are_on_record(zorro: Zorro) -> None:
    manifest = zorro.bundle.manifest
    assert manifest["purity"]["fused"]["audio_logits"] == ["audio"]
    assert manifest["purity"]["fused"]["video_logits"] == ["video"]
    assert [x["name"] for x in manifest["graphs"]["fused"]["outputs"]] == output_names(Modality.FUSED)
    for report in manifest["parity"]["golden"] + manifest["parity"]["real"]:
        assert report["max_abs_error"] < 1e-4
        assert report["top1_agreement"] == 1
        assert {1, 8} <= set(report["batch_sizes"])


def test_its_scores_are_what_was_asked_of_it(zorro: Zorro) -> None:
    """Scores of the test split, which `zorro evaluate` gave for these graphs."""
    scores = zorro.bundle.manifest["metrics"]
    wanted = {"sounds": 0.72, "sights": 0.75, "pairs_fused": 0.96}
    assert {name: least for name, least in wanted.items() if scores[name]["top1"] < least} == {}
    assert scores["pairs_fused"]["top1"] >= max(scores["pairs_audio"]["top1"], scores["pairs_video"]["top1"])
    assert len(zorro.bundle.labels) == 30


def test_the_card_names_data_and_licences(zorro: Zorro) -> None:
    card = (BUNDLE / "MODEL_CARD.md").read_text()
    for row in zorro.bundle.manifest["about"]["data"]:
        assert row["source"] in card
        assert row["licence"] in card


def test_words_are_heard_and_seen_by_one_who_was_asked_for_little() -> None:
    """Scores of the test split of GRID's talker 1: guessing gives 0.19."""
    manifest = Zorro.open(WORDS).bundle.manifest
    wanted = {"audio": 0.85, "video": 0.75, "fused": 0.9}
    assert {name: least for name, least in wanted.items() if manifest["metrics"][name]["within_groups"] < least} == {}
    assert manifest["metrics"]["video"]["groups"]["digit"]["accuracy"] > 0.77, "a linear model's"
    assert {label.id for label in Zorro.open(WORDS).bundle.labels} >= {"bin", "blue", "at", "f", "two", "now"}
    assert max(report["max_abs_error"] for report in manifest["parity"]["real"]) < 1e-4


def test_real_recordings_are_recognised(zorro: Zorro, shared_dir: Path) -> None:
    folder = shared_dir / "data" / "sights_sounds"
    sound = zorro.classify(folder / "audio" / "esc10_4-182395-A.ogg").whole["audio"]
    assert sound.labels
    assert sound.labels[0].id == "dog"
