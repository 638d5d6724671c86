"""Three uses of attention, and their cost against recurrence and convolution."""
