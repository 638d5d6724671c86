"""Milestone: Many questions, few memories."""
