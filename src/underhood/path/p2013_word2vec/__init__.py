"""word2vec 2013: vectors of words from the words around them."""
