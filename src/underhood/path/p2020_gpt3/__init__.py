"""GPT-3 step by step (2020): one token at a time through a pile of blocks, and what that costs."""
