"""The SeedVR2 diffusion transformer in plain PyTorch, and the sampling around it."""
