"""Supervised fine-tuning: the loss on answers only, and how long to train (Ouyang et al. 2022, step 1)."""
