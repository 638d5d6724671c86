"""Absolute and relative positions."""
