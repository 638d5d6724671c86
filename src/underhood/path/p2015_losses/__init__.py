"""Milestone: Losses: learning from being confidently wrong."""
