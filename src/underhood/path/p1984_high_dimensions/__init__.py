"""Milestone: High dimensions have room."""
