"""Milestone: A norm needs no mean."""
