"""The `unary` door: one complete answer for clients that cannot read a decoupled model's responses."""
