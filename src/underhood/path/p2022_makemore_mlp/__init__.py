"""makemore 2022: a multilayer perceptron for names, its first loss, and batch normalisation."""
