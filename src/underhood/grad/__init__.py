"""Life before PyTorch: derivatives worked out by our own engines, forwards and backwards."""
