"""Over-optimisation: the reward model's score rises for ever, what the person wanted rises, then falls."""
