"""Milestone: A board inside a model that has only read moves."""
