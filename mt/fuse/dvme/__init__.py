"""Dynamic Visual Meta-Embedding: the network, its start, its training, and the choice of a recipe."""
