"""Milestone: Probability by trying it out."""
