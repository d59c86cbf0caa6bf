"""Choosing tokens until a stop: greedy, sampling, beams, constraints; and scoring given answers."""
