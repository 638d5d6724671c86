"""Knowledge distillation: a small network learns from a large one's softened probabilities (Hinton et al. 2015)."""
