"""Retrieval across modalities.

It asks whether a clip's sound finds its picture among all pictures, and the same in five more directions.

The shared space is what contrastive training makes. Where embeddings are equally near, the match counts as
last: a collapsed space finds nothing, rather than everything.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .clip_predictions import ClipPredictions
from .metrics import bootstrap_interval, match_ranks
from .stream_inputs import SERVED_STREAMS

RECALLS = (1, 5, 10)
QUERY_BLOCK = 1024  # queries at a time: the matrix of all is not needed


def retrieval_tables(
    embeddings: Mapping[str, Float[np.ndarray, "clips dim"]],
    *,
    unit: Sequence[object] | None = None,
    seed: int = 0,
    num_resamples: int = 1000,
) -> dict[str, dict[str, Any]]:
    """Recall at 1, 5 and 10 in every direction between streams: for audio, video and fused, six.

    Args:
        embeddings: by stream, row i of each for clip i; made unit length here.
        unit: see `metrics.bootstrap_interval`; of queries, among the same keys.
        seed: of the interval.
        num_resamples: of the interval.

    Returns:
        Tables by `{query}_to_{key}`: `clips`, `recall@k`, `recall@1_interval`, `median_rank`, and `chance@k`,
        what guessing would give.

    Raises:
        ValueError: fewer than two streams or clips, different shapes, or an embedding of zero length.
    """
    shapes = {name: rows.shape for name, rows in embeddings.items()}
    if len(shapes) < 2 or len(set(shapes.values())) != 1:
        raise ValueError(f"got embeddings {shapes}; give at least two streams of the same clips in one space")
    units = {name: _unit_length(name, rows) for name, rows in embeddings.items()}
    tables = {}
    for query, key in permutations(units, 2):
        ranks = nearest_ranks(units[query], units[key])
        tables[f"{query}_to_{key}"] = _rank_table(ranks, unit=unit, seed=seed, num_resamples=num_resamples)
    return tables


def common_embeddings(
    predictions: ClipPredictions, streams: Sequence[str] = SERVED_STREAMS
) -> tuple[dict[str, Float[np.ndarray, "clips dim"]], Int[np.ndarray, " clips"]]:
    """Embeddings by stream of the clips that have all streams, and the clips' item numbers.

    Raises:
        ValueError: there is no such clip.
    """
    clean = predictions.clean
    missing = [name for name in streams if name not in clean]
    if missing:
        raise ValueError(f"no clip answers for {missing}; retrieval needs clips that have sound and picture")
    shared = sorted(set.intersection(*[set(clean[name].items.tolist()) for name in streams]))
    if not shared:
        raise ValueError(
            f"no clip answers for all of {list(streams)}; retrieval needs clips that have sound and picture"
        )
    found = {}
    for name in streams:
        embedding = clean[name].embedding
        assert embedding is not None, "clean clips have embeddings"
        found[name] = embedding[np.searchsorted(clean[name].items, shared)]
    return found, np.array(shared)


def nearest_ranks(
    queries: Float[np.ndarray, "clips dim"], keys: Float[np.ndarray, "clips dim"]
) -> Int[np.ndarray, " clips"]:
    """Place, from 1, of key i among all keys by its product with query i."""
    return np.concatenate(
        [
            match_ranks(
                queries[start : start + QUERY_BLOCK] @ keys.T,
                np.arange(start, min(start + QUERY_BLOCK, len(queries))),
            )
            for start in range(0, len(queries), QUERY_BLOCK)
        ]
    )


def _rank_table(
    ranks: Int[np.ndarray, " clips"], *, unit: Sequence[object] | None, seed: int, num_resamples: int
) -> dict[str, Any]:
    first = bootstrap_interval(np.mean, ranks == 1, unit=unit, seed=seed, num_resamples=num_resamples)
    return {
        "clips": len(ranks),
        **{f"recall@{k}": float((ranks <= k).mean()) for k in RECALLS},
        "recall@1_interval": [first.low, first.high],
        "median_rank": float(np.median(ranks)),
        **{f"chance@{k}": min(1.0, k / len(ranks)) for k in RECALLS},
    }


def _unit_length(name: str, rows: Float[np.ndarray, "clips dim"]) -> Float[np.ndarray, "clips dim"]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (lengths > 0).all():  # NaN is caught too
        raise ValueError(
            f"{int((~(lengths > 0)).sum())} embeddings of {name!r} have no length; drop the clips it lacks"
        )
    return np.asarray(rows / lengths)
