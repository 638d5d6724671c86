"""Milestone: Language models past and present: one corpus, every model."""
