"""Peers: other model servers with the same decoding and graphs, set up as their documentation says.

`python -m benchmarks.serving.peers.NAME BUNDLE PORT` serves on the loopback address:

- GET /readyz: 200 once every worker has loaded the model.
- POST /clips: takes the bytes of a clip, returns the labels of each stream as JSON.
- POST /tensors/audio, POST /tensors/fused: takes one window as raw bytes, the inputs of the graph one after
  another; returns its outputs likewise, as raw float32.

Each has as many workers as there are cores, with one thread each, and batches tensors where it can.
"""
