"""Milestone: Second order: Newton, L-BFGS and products with curvature."""
