"""Seventy-five years of language models on one corpus: from Shannon's pairs of letters to Llama."""

STEM = "seventy_five_years"
"""Its name among the results and pages."""
