"""For eyes: one line an array, masks and attention as characters, tables, plans, pictures."""
