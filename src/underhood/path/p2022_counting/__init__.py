"""Milestone: Counting is maximum likelihood."""
