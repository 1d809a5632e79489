"""Units on devices: handed out, computed, joined, and told of."""
