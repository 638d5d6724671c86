"""Milestone: Gradient checking: two calls that find the mistake."""
