"""This folder as a ComfyUI custom node: nothing is imported before ComfyUI asks for the nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI calls for the nodes of this pack."""
    from .seedvr2_engine.comfy.extension import SeedVR2EngineExtension

    return SeedVR2EngineExtension()
