"""A predictor into scores: accuracy, retrieval, linear probes, corruptions and calibration, by stream."""
