"""Milestone: LeNet reads handwritten digits."""
