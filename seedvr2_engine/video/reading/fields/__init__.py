"""Interlaced and telecined clips: recognised, and made whole frames."""
