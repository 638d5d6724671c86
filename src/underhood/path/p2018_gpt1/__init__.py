"""GPT-1 2018: pre-training on text, then fine-tuning on labels."""
