"""Clips and pictures as streams of frames, in and out."""
