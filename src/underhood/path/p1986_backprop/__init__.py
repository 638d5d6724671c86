"""Milestone: Backpropagation finds mirror symmetry."""
