"""Whole jobs made of stages."""
