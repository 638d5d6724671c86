"""What every floor shares: specs, protocols, errors, the run log, checkpoints."""
