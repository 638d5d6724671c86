"""Karpathy 2023: a GPT from nothing."""
