"""Milestone: What one neuron can memorise."""
