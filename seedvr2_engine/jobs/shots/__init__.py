"""Where the shots of a clip begin: found, or read from a file."""
