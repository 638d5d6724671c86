"""Classification fine-tuning: a new head, and which token and which layers to train (Raschka 2024, chapter 6)."""
