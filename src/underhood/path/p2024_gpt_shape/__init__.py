"""A GPT from its parts: every parameter counted, the first tokens written (Raschka 2024, chapter 4)."""
