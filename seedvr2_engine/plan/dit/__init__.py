"""The transformer on paper: its memory and its time on any GPU, in every format that is computed there."""
