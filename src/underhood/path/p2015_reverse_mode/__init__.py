"""Milestone: Reverse mode: every slope in one walk back."""
