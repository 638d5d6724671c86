"""Milestone: A language model is a compressor."""
