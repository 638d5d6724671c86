"""micrograd 2022: a neural network from single numbers that know their gradients."""
