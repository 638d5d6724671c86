"""Milestone: Bits: the measure of surprise."""
