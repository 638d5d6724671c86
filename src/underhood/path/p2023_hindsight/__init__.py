"""Chain of Hindsight: learning from judged answers side by side (Liu et al. 2023)."""
