"""Milestone: A window that slides, layer upon layer."""
