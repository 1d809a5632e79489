"""Standard output and error, the progress bar, and Ctrl-C."""
