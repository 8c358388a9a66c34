"""Where each peer answers, for the benchmark to read without its framework."""

_PATHS = {"clips": "/clips", "audio": "/tensors/audio", "fused": "/tensors/fused"}

PATHS = dict.fromkeys(("plain", "litserve", "bentoml", "mlserver", "ray"), _PATHS)
READY_PATHS = {
    "litserve": "/readyz",
    "bentoml": "/readyz",
    "mlserver": "/v2/models/peer/ready",
    "ray": "/readyz",
}
