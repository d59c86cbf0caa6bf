"""Text to ids and back: the tokenizer, its vocabulary, the prompt, and boxes among the words."""
