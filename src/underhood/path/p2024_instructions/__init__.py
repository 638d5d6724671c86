"""Instruction fine-tuning: a prompt form, padding that costs nothing, and an end (Raschka 2024, chapter 7)."""
