"""The version of this software: its only place."""

__version__ = "0.1.0"
