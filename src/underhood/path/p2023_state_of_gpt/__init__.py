"""State of GPT: pretraining, fine-tuning, a reward model and reinforcement learning on one model (Karpathy 2023)."""
