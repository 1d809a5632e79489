"""Makes the small VAE that ships with the package: procedural clips, a trainer, and the export to GGUF."""
