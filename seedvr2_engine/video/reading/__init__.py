"""Clips and pictures as streams of frames, read from files."""
