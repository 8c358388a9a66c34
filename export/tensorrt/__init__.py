"""TensorRT: what it takes of a graph (`ops`, `rules`, `restrictions`), and engines built ahead (`engines` and the rest)."""
