"""Attention in four steps, from dot products to several causal heads (Raschka 2024, chapter 3)."""
