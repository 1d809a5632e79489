"""From frames to frames: what the user's clip goes through."""
