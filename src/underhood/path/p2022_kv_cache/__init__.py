"""Milestone: The past does not change, so keep it."""
