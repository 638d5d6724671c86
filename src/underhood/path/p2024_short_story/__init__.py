"""Pretraining on one short story: the first loss, and how training text is memorised (Raschka 2024, chapter 5)."""
