"""Milestone: Family trees: the first learned embeddings."""
