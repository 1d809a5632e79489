"""Plain PyTorch models, readable top to bottom; the numerical reference for everything else."""
