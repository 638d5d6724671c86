"""Evaluation: perplexity, multiple choice, generation, preference, with confidence intervals."""
