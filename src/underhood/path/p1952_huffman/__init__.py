"""Milestone: Huffman's code: within a bit of the entropy."""
