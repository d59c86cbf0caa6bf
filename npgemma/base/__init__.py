"""What the model stands on: weights, precision, matrices in 16 bits, the cache, checks, errors, one line an array."""
