"""The version of this software. `pyproject.toml` repeats it for ComfyUI's Manager, and a test compares the two."""

__version__ = "0.2.0"
