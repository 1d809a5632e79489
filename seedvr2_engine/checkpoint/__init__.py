"""Checkpoint files: named tensors read lazily, recognised by names and shapes, found or downloaded."""
