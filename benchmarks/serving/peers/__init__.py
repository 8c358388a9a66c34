"""Servers that ours is compared with, each as its documentation says, over the same decoding and the same graphs.

`python -m benchmarks.serving.peers.NAME BUNDLE PORT` answers, on the loopback address:

- GET /readyz: 200 once every worker has loaded the model.
- POST /clips: the bytes of a clip; JSON, the labels of each stream.
- POST /tensors/audio, POST /tensors/fused: one window, as raw bytes of the graph's inputs one after another; raw float32 of
  its outputs one after another.

Each has as many workers as there are cores, with one thread each, and batches tensors where it can.
"""
