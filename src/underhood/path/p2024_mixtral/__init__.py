"""Milestone: Eight experts, two at work."""
