"""Calibration before and after preference training (OpenAI 2023, figure 8)."""
