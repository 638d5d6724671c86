"""RLHF before InstructGPT: the adaptive KL controller of 2019, and a style learnt from a few hundred comparisons."""
