"""The bundle that is shipped opens, proves itself on this machine, and knows what it says it knows."""

from pathlib import Path

import pytest

from media import Modality
from runtime import Zorro
from runtime.signature import output_names

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "bundles" / "sights-sounds" / "1"
MAX_BYTES = 30_000_000  # of its golden clips and one precision; all of them live in git
WORDS = ROOT / "bundles" / "grid-words" / "1"


@pytest.fixture(scope="module")
def zorro() -> Zorro:
    return Zorro.open(BUNDLE)


@pytest.mark.parametrize("variant", ["fp32", "fp16", "int8-cpu", "int8-qdq"])
@pytest.mark.parametrize("path", [BUNDLE, WORDS], ids=lambda path: path.parent.name)
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
    others = {"fp16", "int8-cpu", "int8-qdq", "checkpoint"}
    files = [path for path in BUNDLE.rglob("*") if path.is_file() and path.parent.name not in others]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES


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
    assert {
        name: least for name, least in wanted.items() if manifest["metrics"][name]["within_groups"] < least
    } == {}
    assert manifest["metrics"]["video"]["groups"]["digit"]["accuracy"] > 0.77, "a linear model's"
    assert {label.id for label in Zorro.open(WORDS).bundle.labels} >= {"bin", "blue", "at", "f", "two", "now"}


def test_real_recordings_are_recognised(zorro: Zorro, shared_dir: Path) -> None:
    folder = shared_dir / "data" / "sights_sounds"
    sound = zorro.classify(folder / "audio" / "esc10_4-182395-A.ogg").whole["audio"]
    assert sound.labels
    assert sound.labels[0].id == "dog"
