"""Milestone: Two heads in a row copy from the context."""
