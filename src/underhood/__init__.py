"""Underhood: the whole path to large language models as one working system."""
