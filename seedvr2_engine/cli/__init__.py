"""The command `seedvr2`: parse arguments, call the library, map errors to exit codes."""

from .app import main

__all__ = ["main"]
