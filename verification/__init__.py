"""A bundle against the model it was exported from: the same scores for either, and proof from bytes to answer."""
