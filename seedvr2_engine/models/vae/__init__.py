"""The SeedVR2 causal video VAE in plain PyTorch."""
