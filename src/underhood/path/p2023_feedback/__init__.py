"""Feedback flywheel: users' clicks with their position bias, corrected by inverse propensities, and DPO on them."""
