"""Milestone: Linear algebra: what a matrix does."""
