"""Where model files are: on this machine, or on a public host."""
