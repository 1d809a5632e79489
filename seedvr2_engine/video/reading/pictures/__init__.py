"""Pictures, animated ones included, and sequences of them."""
