"""Milestone: Mathematics as programs: sharing a secret."""
