"""Milestone: Three factors: data, hardware, gradients for free."""
