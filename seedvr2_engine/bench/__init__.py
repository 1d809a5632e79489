"""What it costs and what it is worth: time, memory and quality, measured together or not at all."""
