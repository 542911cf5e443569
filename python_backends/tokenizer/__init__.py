"""Text to token ids and back: the `tokenizer` backend's Triton-free part, shared with the scheduler."""
