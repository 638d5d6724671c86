"""Milestone: Time travel: the network of 1989 with today's recipes."""
