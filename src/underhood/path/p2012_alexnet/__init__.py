"""Milestone: AlexNet: deep networks win."""
