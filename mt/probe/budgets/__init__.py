"""Which labels a probe may look at: draws of ours, stratified or random, and those of a draw file."""
