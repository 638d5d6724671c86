"""makemore 2022: a hierarchy like WaveNet, which is a stack of dilated causal convolutions."""
