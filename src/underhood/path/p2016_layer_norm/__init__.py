"""Residual connections and layer normalisation."""
