"""Compare a bundle with the model it was exported from, and score either on a collection."""
