"""A map of word vectors as a page of its own."""
