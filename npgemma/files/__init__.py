"""What is read and written: checkpoints, pictures, tokenizers, boxes."""
