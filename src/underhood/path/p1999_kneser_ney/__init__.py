"""Milestone: Smoothing: what nobody has said yet."""
