"""Learning: losses, their gradients through the whole model, optimisers, low-rank adapters, and fine-tuning.

GUIDE.md beside this file explains fine-tuning step by step.
"""
