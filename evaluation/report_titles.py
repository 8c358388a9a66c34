"""What reports call metrics, streams and tables."""

PERCENT = ("top1", "top5", "map", "within_groups")
"""Metrics that are written as percentages."""
METRIC_TITLES = {
    "top1": "top-1",
    "top5": "top-5",
    "map": "mAP",
    "within_groups": "within groups",
    "calibration_error": "ECE",
}
STREAM_TITLES = {
    "audio": "audio", "video": "video", "fused": "fused", "fusion_by_audio": "fused, no picture",
    "fusion_by_video": "fused, no sound",
}  # fmt: skip
UNPAIRED_TITLES = {
    "sounds": "sounds",
    "sights": "pictures",
    "esc10": "sounds of ESC-10",
    "pairs_fused": "pairs, by both",
    "pairs_audio": "pairs, by sound",
    "pairs_video": "pairs, by picture",
    "noisy_sound_audio": "pairs with noise over the sound, by sound",
    "noisy_sound_fused": "pairs with noise over the sound, by both",
    "noise_for_picture_video": "pairs with noise for the picture, by picture",
    "noise_for_picture_fused": "pairs with noise for the picture, by both",
}
"""Names of the tables of an unpaired collection."""
