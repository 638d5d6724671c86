"""Retrieval: documents as passages, a BM25 index over them, and the search that finds what answers a question."""
