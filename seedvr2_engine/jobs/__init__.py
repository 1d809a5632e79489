"""A clip as a job: its shots, and the work that it is divided into."""
