"""What it costs and what it is worth: time, memory and quality of the VAE, measured together or not at all."""
