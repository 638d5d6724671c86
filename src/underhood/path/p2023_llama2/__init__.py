"""Milestone: Four small changes to GPT-2."""
