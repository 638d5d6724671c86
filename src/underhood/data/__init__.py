"""Documents in, token shards and batches out."""
