"""Milestone: Markov counts the letters of Eugene Onegin."""
