"""A model's folder: its configuration, its weights under any layout's names, and all of it as one record."""
