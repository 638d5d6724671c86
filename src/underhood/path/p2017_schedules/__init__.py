"""Milestone: Schedules: warm up, anneal, clip."""
