"""Retrieval: directions, ranks, and what a collapsed or shuffled space finds."""

import numpy as np
import pytest

from evaluation.retrieval import QUERY_BLOCK, nearest_ranks, retrieval_tables

QUICK = {"num_resamples": 50}


def _turned(degrees: list[float]) -> np.ndarray:
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def test_six_directions_by_hand() -> None:
    audio, video = (
        _turned([0, 90, 180]),
        _turned([10, 100, 20]),
    )  # the third picture is nearer the first sound
    found = retrieval_tables({"audio": audio, "video": video * 7, "fused": audio}, **QUICK)
    assert sorted(found) == [
        "audio_to_fused",
        "audio_to_video",
        "fused_to_audio",
        "fused_to_video",
        "video_to_audio",
        "video_to_fused",
    ]
    assert found["audio_to_fused"]["recall@1"] == 1
    there = found[
        "audio_to_video"
    ]  # of 180 degrees: 100 lies 80 away, 20 lies 160 away, 10 lies 170 away: rank 2
    assert (there["recall@1"], there["recall@5"], there["median_rank"]) == (pytest.approx(2 / 3), 1, 1)
    back = found["video_to_audio"]  # of 20 degrees: 0, 90, then 180: rank 3
    assert back["recall@1"] == pytest.approx(2 / 3)
    assert (there["clips"], there["chance@1"], there["chance@10"]) == (3, pytest.approx(1 / 3), 1)
    assert there["recall@1_interval"][0] <= 2 / 3 <= there["recall@1_interval"][1]


def test_ranks_by_block_are_those_of_the_whole_matrix() -> None:
    random = np.random.default_rng(0)
    queries, keys = (random.normal(size=(QUERY_BLOCK + 76, 4)) for _ in range(2))
    near = queries @ keys.T
    expected = [1 + int((np.delete(row, i) >= row[i]).sum()) for i, row in enumerate(near)]
    assert nearest_ranks(queries, keys).tolist() == expected


def test_a_shuffled_space_finds_what_chance_does() -> None:
    random = np.random.default_rng(0)
    found = retrieval_tables(
        {"audio": random.normal(size=(400, 8)), "video": random.normal(size=(400, 8))}, **QUICK
    )
    table = found["audio_to_video"]
    assert table["chance@10"] == 0.025
    assert table["recall@10"] == pytest.approx(0.025, abs=0.02)


def test_a_collapsed_space_finds_nothing() -> None:
    same = np.tile([[0.6, 0.8]], (50, 1)).astype(np.float32)
    assert retrieval_tables({"audio": same, "video": same}, **QUICK)["audio_to_video"]["recall@10"] == 0


def test_queries_of_one_film_stand_and_fall_together() -> None:
    random = np.random.default_rng(0)
    audio, video = random.normal(size=(60, 3)), random.normal(size=(60, 3))
    video[:30] = audio[:30]
    apart = retrieval_tables({"audio": audio, "video": video})["audio_to_video"]["recall@1_interval"]
    unit = [i // 15 for i in range(60)]
    together = retrieval_tables({"audio": audio, "video": video}, unit=unit)["audio_to_video"][
        "recall@1_interval"
    ]
    assert together[1] - together[0] > 1.5 * (apart[1] - apart[0])


def test_retrieval_fails() -> None:
    with pytest.raises(ValueError, match="at least two streams"):
        retrieval_tables({"audio": np.ones((2, 2))})
    with pytest.raises(ValueError, match="same clips"):
        retrieval_tables({"audio": np.ones((2, 2)), "video": np.ones((3, 2))})
    with pytest.raises(ValueError, match="1 embeddings of 'video' have no length"):
        retrieval_tables({"audio": np.ones((2, 2)), "video": np.array([[1.0, 0], [0, 0]])})
    with pytest.raises(ValueError, match="2 embeddings of 'audio' have no length"):
        retrieval_tables({"audio": np.full((2, 2), np.nan), "video": np.ones((2, 2))})
