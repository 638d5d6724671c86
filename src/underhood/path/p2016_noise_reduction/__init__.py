"""Milestone: Less noise: SVRG, SAGA, averages and growing batches."""
