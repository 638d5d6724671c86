"""Milestone: Which token was it?"""
