"""A model leaves the house: in Hugging Face's form or llama.cpp's, with a card that says how it was made."""
