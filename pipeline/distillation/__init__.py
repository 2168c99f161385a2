"""A large model's knowledge in a small one: sample, segment, train, score, quantize, publish."""
