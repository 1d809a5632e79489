"""What the transformer does between its matrix products."""
