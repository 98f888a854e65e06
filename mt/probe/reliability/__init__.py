"""How far the probabilities of table rows can be trusted: numbers over draws, and the table that shows them."""
