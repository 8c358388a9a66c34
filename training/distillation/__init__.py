"""Distillation: a Zorro learns what trained models of one modality answer, and to join what they say."""
