"""Text as the model gets it: words, tokens, windows, vectors (Raschka 2024, chapter 2)."""
