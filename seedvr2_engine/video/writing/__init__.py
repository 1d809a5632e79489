"""Clips and pictures as files, written from frames."""
