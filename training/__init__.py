"""Manifests into checkpoints: data, augmentation, losses, the loop, metrics."""
