"""Milestone: What a softmax over few dimensions cannot say."""
