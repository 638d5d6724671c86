"""Holtzman et al. 2019: how a text is drawn from next-token probabilities."""
