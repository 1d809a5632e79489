"""The nodes of ComfyUI: thin, and the only room that imports ComfyUI."""
