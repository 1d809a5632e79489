"""Compiled kernels that travel: a folder for one generation of GPUs and one Triton, used instead of compiling."""
