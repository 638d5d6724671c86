"""LoRA: fine-tuning through a small matrix product beside each frozen layer (Hu et al. 2021)."""
