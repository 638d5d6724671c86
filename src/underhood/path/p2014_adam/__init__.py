"""Milestone: Adam: every weight its own step."""
