"""The engine behind the objects of ComfyUI's own SeedVR2, whose nodes use them as they are."""
