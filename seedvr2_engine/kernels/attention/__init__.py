"""Attention: of one wide head over a frame, in 16 and 8 bits, and of many heads inside windows."""
