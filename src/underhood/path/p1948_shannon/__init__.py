"""Milestone: Shannon draws English from tables."""
