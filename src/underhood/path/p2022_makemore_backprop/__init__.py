"""makemore 2022: backpropagation by hand, tensor by tensor."""
