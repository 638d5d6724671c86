"""Distilling step-by-step: rationales as a second task (Hsieh et al. 2023)."""
