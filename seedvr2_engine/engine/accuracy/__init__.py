"""Whether a file's own weights bear a number format, and what is done where they do not."""
