"""Using a model: caches, sampling, generation."""
