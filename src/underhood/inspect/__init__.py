"""Looking inside: what a model computes on its way from a prompt to its scores, recorded and read."""
