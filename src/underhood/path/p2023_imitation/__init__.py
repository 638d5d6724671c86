"""Imitation: a student of a larger model's answers copies style, not knowledge (Gudibande et al. 2023)."""
