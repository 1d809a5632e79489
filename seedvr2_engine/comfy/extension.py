"""Which nodes ComfyUI gets, and under which ids."""

import logging
from collections.abc import Container
from pathlib import Path

import folder_paths
import nodes
from comfy_api.latest import ComfyExtension, io

from .latent_nodes import ConvertToGGUF, VAEDecode, VAEEncode
from .loader_nodes import LoadDiT, LoadVAE, TorchCompileSettings
from .native.nodes import EngineModel, EngineVAE
from .upscaler_node import VideoUpscaler

log = logging.getLogger(__name__)

SHARED_NODES = (VideoUpscaler, LoadDiT, LoadVAE, TorchCompileSettings)
"""Nodes whose ids the public pack has too."""
OWN_NODES = (VAEEncode, VAEDecode, ConvertToGGUF, EngineVAE, EngineModel)

_PUBLIC_PACK = frozenset({"seedvr2_videoupscaler", "comfyui-seedvr2_videoupscaler"})
"""Folders that it is installed in, by its registry and by git."""


class SeedVR2EngineExtension(ComfyExtension):
    """The pack as ComfyUI sees it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All nodes; those whose ids are taken, or will be, get ids of their own."""
        return choose_nodes(nodes.NODE_CLASS_MAPPINGS, public_pack_here())


def choose_nodes(taken: Container[str], will_be_taken: Path | None = None) -> list[type[io.ComfyNode]]:
    """The nodes under free ids. will_be_taken: the public pack's folder, whichever of the two is loaded first."""
    chosen: list[type[io.ComfyNode]] = []
    for node in SHARED_NODES:
        if node.NODE_ID not in taken and will_be_taken is None:
            chosen.append(node)
            continue
        own = node.NODE_ID.replace("SeedVR2", "SeedVR2Engine", 1)
        owner = will_be_taken or "another pack"
        log.warning("[SeedVR2] The node id %s belongs to %s; this pack's is %s", node.NODE_ID, owner, own)
        chosen.append(type(node.__name__, (node,), {"NODE_ID": own, "NAME": f"{node.NAME} (Engine)"}))
    return [*chosen, *OWN_NODES]


def public_pack_here() -> Path | None:
    """The folder of the public pack, if it is installed and enabled."""
    for folder in map(Path, folder_paths.get_folder_paths("custom_nodes")):
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.name.lower() in _PUBLIC_PACK and (entry / "src" / "interfaces").is_dir():
                return entry
    return None
