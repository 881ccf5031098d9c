"""Sensitivity: the predicted loss increase of each layer for each number of bits, measured before a run."""
