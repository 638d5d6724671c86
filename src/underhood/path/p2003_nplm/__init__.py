"""Bengio et al. 2003: a neural network that learns vectors of words while it predicts the next one."""
