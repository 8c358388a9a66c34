"""Scores of models: predictions for clips, metrics, corruptions, linear probes, retrieval, and reports of them."""
