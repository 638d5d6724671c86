"""Measuring a model."""
