"""Kernels compiled for GPUs that are not here, and what the result says of them."""
