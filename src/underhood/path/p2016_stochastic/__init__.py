"""Milestone: Stochastic gradients: many rough steps for the price of one."""
