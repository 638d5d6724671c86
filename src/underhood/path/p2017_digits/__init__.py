"""Milestone: Sixteen and sixteen units read digits."""
