"""Whole language models behind one protocol."""
