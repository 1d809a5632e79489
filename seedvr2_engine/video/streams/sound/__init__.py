"""Sound: copied where players accept it, or encoded anew."""
