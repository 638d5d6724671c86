"""Shared by all layers: specs, protocols, errors, the run log, checkpoints."""
