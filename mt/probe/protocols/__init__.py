"""What a protocol is, and all of them by name."""
