"""GPT-2 2019: one model, many tasks; and nanoGPT's reproduction of it."""
