"""How GPT-3 works: one token at a time through a pile of blocks, and what that costs."""
