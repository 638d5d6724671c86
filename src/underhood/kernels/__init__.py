"""Compiled CPU kernels (Numba and LLVM) for inference, and the layers that call them."""
