"""Milestone: The perceptron corrects itself."""
