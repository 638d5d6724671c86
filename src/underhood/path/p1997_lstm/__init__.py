"""RNN, LSTM and GRU: why errors vanish on their way back through time, and what gates do about it."""
