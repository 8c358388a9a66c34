"""The paths of each peer, in a file that needs none of their frameworks."""

_PATHS = {"clips": "/clips", "audio": "/tensors/audio", "fused": "/tensors/fused"}

PATHS = dict.fromkeys(("plain", "litserve", "bentoml", "mlserver", "ray"), _PATHS)
READY_PATHS = {
    "litserve": "/readyz",
    "bentoml": "/readyz",
    "mlserver": "/v2/models/peer/ready",
    "ray": "/readyz",
}
