"""Milestone: Position as an angle."""
