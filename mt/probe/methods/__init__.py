"""How a protocol is fitted on a budget: one module per method, and gated attention over bags."""
