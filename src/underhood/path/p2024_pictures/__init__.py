"""Milestone: Where 175 billion weights are, and how one neuron holds a fact."""
