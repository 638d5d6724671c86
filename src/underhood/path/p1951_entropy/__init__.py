"""Milestone: Shannon measures the entropy of printed English."""
