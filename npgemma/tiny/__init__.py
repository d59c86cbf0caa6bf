"""The model in the box: a small PaliGemma 2 that was really trained; README.md describes it."""
