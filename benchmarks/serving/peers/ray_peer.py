"""Ray Serve: a FastAPI deployment with a replica for each core, and dynamic batches for tensors.

HAProxy is in front and Serve is set to optimise throughput, as its documentation recommends. A replica works
in its event loop, so it does one thing at a time.
"""

import os
import secrets
import signal
import sys
import tempfile

os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = os.environ["RAY_SERVE_THROUGHPUT_OPTIMIZED"] = "1"  # read at import
import ray
from fastapi import FastAPI, Request, Response
from ray import serve

from media import Modality

from .common import BATCH_WAIT_SECONDS, PEER_BATCH_SIZE, answer_clip, open_model, run_batch, window_from_bytes

NUM_REPLICAS = len(os.sched_getaffinity(0))
HAPROXY_PATHS = {
    "CONFIG_FILE_LOC": "haproxy.cfg", "SOCKET_PATH": "admin.sock", "METRICS_SOCKET_PATH": "metrics.sock",
    "SERVER_STATE_BASE": "", "SERVER_STATE_FILE": "server-state",
}  # fmt: skip
app = FastAPI()
batched = serve.batch(max_batch_size=PEER_BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_SECONDS)


@serve.deployment(
    num_replicas=NUM_REPLICAS, max_ongoing_requests=2 * PEER_BATCH_SIZE, ray_actor_options={"num_cpus": 1}
)
@serve.ingress(app)
class Peer:
    """A replica."""

    def __init__(self, bundle: str) -> None:
        self.model = open_model(bundle)

    @app.get("/readyz")
    def readyz(self) -> Response:
        running = all(other.status == "RUNNING" for other in serve.status().applications.values())
        return Response(status_code=200 if running else 503)

    @app.post("/clips")
    async def clips(self, request: Request) -> Response:
        return Response(answer_clip(self.model, await request.body()), media_type="application/json")

    @app.post("/tensors/{graph}")
    async def tensors(self, request: Request, graph: Modality) -> Response:
        run = self.audio if graph == Modality.AUDIO else self.fused
        return Response(await run(await request.body()), media_type="application/octet-stream")

    @batched
    async def audio(self, bodies: list[bytes]) -> list[bytes]:
        return self._run(Modality.AUDIO, bodies)

    @batched
    async def fused(self, bodies: list[bytes]) -> list[bytes]:
        return self._run(Modality.FUSED, bodies)

    def _run(self, graph: Modality, bodies: list[bytes]) -> list[bytes]:
        return run_batch(self.model, graph, [window_from_bytes(self.model, graph, body) for body in bodies])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            f"RAY_SERVE_HAPROXY_{name}": f"{folder}/{path}" for name, path in HAPROXY_PATHS.items()
        }
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        ray.init(
            num_cpus=NUM_REPLICAS,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="warning",
            _temp_dir=folder,
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        logging = {"log_level": "WARNING", "enable_access_log": False}
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])}, logging_config=logging)
            serve.run(Peer.bind(sys.argv[1]), logging_config=logging)
            signal.pause()
        except KeyboardInterrupt:
            ray.shutdown()


if __name__ == "__main__":
    main()
