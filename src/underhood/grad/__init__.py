"""Automatic differentiation without PyTorch: forward and reverse mode, on scalars and arrays."""
