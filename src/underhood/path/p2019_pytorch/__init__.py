"""Milestone: PyTorch: the program is the model."""
