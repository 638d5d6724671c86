"""Vaswani et al. 2017: translation without recurrence."""
