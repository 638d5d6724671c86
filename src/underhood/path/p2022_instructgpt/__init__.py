"""InstructGPT: demonstrations, comparisons and reinforcement learning, judged by a known taste (Ouyang et al. 2022)."""
