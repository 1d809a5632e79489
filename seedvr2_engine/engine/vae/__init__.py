"""The VAE on kernels: a plan bound to memory, and the clips that go through it."""
