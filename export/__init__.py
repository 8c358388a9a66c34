"""Checkpoints into bundles: graphs, their proof, and the folder that is served."""
