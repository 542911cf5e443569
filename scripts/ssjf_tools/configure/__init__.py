"""From a built engine and its tokenizer to a filled production repository: the code behind `scripts/configure`."""
