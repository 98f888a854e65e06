"""Which labels a probe may look at: our draws, and those of a draw file."""
