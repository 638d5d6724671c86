"""Best-of-n: the best of n answers by a reward model, with its exact distance from the model that wrote them."""
