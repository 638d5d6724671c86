"""Milestone: Two paths, multiplied."""
