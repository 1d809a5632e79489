"""`seedvr2 upscale` from file to file: one clip, or many."""
