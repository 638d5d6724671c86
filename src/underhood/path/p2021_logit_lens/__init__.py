"""Milestone: Reading a model before it has finished."""
