"""Karpathy 2015: a recurrent network that reads and writes character by character."""
