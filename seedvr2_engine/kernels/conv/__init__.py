"""Causal convolutions, those that change the size and those with few channels included."""
