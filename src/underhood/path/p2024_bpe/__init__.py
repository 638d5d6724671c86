"""The GPT tokenizer 2024: byte-pair encoding of bytes."""
