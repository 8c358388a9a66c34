"""Scores of models.

Here are predictions for clips, metrics, corruptions, linear probes, retrieval, and reports of them.
"""
