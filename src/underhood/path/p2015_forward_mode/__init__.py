"""Milestone: Forward mode: numbers that know their slope."""
