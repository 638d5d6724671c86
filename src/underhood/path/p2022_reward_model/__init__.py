"""Reward models: what a noisy judge prefers, learnt from comparisons (Ouyang et al. 2022, section 3.5)."""
