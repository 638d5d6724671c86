"""PyTorch on one small network: gradients, a training loop, two processes (Raschka 2024, appendix A)."""
