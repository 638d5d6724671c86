"""The Illustrated Transformer: one head, number by number."""
