"""GPT-3 2020: a task learnt from a few examples in the prompt."""
