"""Milestone: Neurons sorted into a few groups."""
