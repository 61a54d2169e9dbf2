"""Builds the captures beside it, frame by frame: deterministic, standard library only."""
