"""GRID, one talker: which masking, pre-trained or not, in noise, by which backbone."""
