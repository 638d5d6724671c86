"""Data pipeline: documents, cleaning, splitting, token shards, packed batches."""
