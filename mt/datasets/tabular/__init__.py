"""Tables of any kind, read by column; and the labels in them."""
