"""Colour correction in a few launches a frame."""
