"""What will run where, in which format and in how much memory, decided before anything runs; needs no GPU."""
