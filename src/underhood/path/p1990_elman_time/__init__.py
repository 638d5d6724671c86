"""Elman 1990: a network that remembers its last state finds structure in time."""
