"""Elman 1990: a network that predicts words sorts them into nouns, verbs and finer classes."""
