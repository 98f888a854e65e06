"""Feature files made of embeddings that other programs computed."""
