"""Walks through the outer structure of files, by format, which decode nothing."""
