"""Judging a port: golden packs, the comparison, and what a fault looks like."""
