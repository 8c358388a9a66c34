"""What TensorRT takes of a graph, and engines built ahead.

`ops`, `rules` and `restrictions` hold what it takes; `engines` and the rest build engines.
"""
