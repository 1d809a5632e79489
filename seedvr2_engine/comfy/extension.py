"""Which nodes ComfyUI gets, and under which ids."""

import json
import logging
from collections.abc import Container, MutableMapping, Sequence
from typing import Any

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

_SUFFIX = " (Engine)"
"""Of the titles of nodes that stand beside the public pack's."""

Classes = MutableMapping[str, Any]
"""ComfyUI's nodes: id -> class."""


class SeedVR2EngineExtension(ComfyExtension):
    """The pack as ComfyUI sees it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All nodes. Packs that are loaded later may take ids over; that is settled when the server starts."""
        chosen = choose_nodes(nodes.NODE_CLASS_MAPPINGS)
        _when_loaded(chosen)
        return chosen


def engine_id(node_id: str) -> str:
    """The id of a shared node that is this pack's in any case."""
    return node_id.replace("SeedVR2", "SeedVR2Engine", 1)


def choose_nodes(taken: Container[str]) -> list[type[io.ComfyNode]]:
    """The nodes: the shared ones under the public ids that are free and under their own, so that workflows open."""
    chosen: list[type[io.ComfyNode]] = []
    for node in SHARED_NODES:
        is_free = node.NODE_ID not in taken
        chosen += [node] if is_free else []
        chosen.append(_own_named(node, is_second=is_free))
    return [*chosen, *OWN_NODES]


def settle(classes: Classes, titles: MutableMapping[str, str], chosen: Sequence[type[io.ComfyNode]]) -> None:
    """Once all packs are loaded: where a public id is another pack's, this pack's own id is the one that is offered."""
    by_id = {node.NODE_ID: node for node in chosen}
    for node in SHARED_NODES:
        own = engine_id(node.NODE_ID)
        owner = classes.get(node.NODE_ID)
        if owner is by_id.get(node.NODE_ID):
            continue
        log.warning("[SeedVR2] The node id %s belongs to another pack; this pack's is %s", node.NODE_ID, own)
        offered = _own_named(node, is_second=False)
        # ComfyUI notes here which folder a node is of, for its help page.
        module = getattr(by_id[own], "RELATIVE_PYTHON_MODULE", None)
        if module is not None:
            offered.RELATIVE_PYTHON_MODULE = module
        classes[own], titles[own] = offered, offered.NAME


def add_texts(texts: dict[str, Any], classes: Classes) -> dict[str, Any]:
    """ComfyUI's translations (language -> ... -> id -> texts), with those of the public ids that are this pack's.

    The files have only the pack's own ids, because they would speak for another pack's nodes too.
    """
    for language in texts.values():
        known = language.get("nodeDefs", {})
        for node in SHARED_NODES:
            own = known.get(engine_id(node.NODE_ID))
            if own is not None and classes.get(node.NODE_ID) is node:
                known[node.NODE_ID] = {**own, "display_name": own["display_name"].removesuffix(_SUFFIX)}
    return texts


def _own_named(node: type[Any], *, is_second: bool) -> type[Any]:
    """A shared node under its own id. is_second: it is there for workflows, and not offered."""
    names = {"NODE_ID": engine_id(node.NODE_ID), "NAME": f"{node.NAME}{_SUFFIX}"}
    return type(node.__name__, (node,), {**names, "IS_DEPRECATED": is_second or node.IS_DEPRECATED})


def _when_loaded(chosen: Sequence[type[io.ComfyNode]]) -> None:
    """Settle the ids when the server starts, which is after all packs, and add the texts where it answers with them."""
    try:
        from aiohttp import web
        from server import PromptServer
    except ImportError:
        return
    if getattr(PromptServer, "instance", None) is None:  # Nodes without a server.
        return
    app = PromptServer.instance.app

    async def on_startup(_: object) -> None:
        settle(nodes.NODE_CLASS_MAPPINGS, nodes.NODE_DISPLAY_NAME_MAPPINGS, chosen)

    @web.middleware  # type: ignore[untyped-decorator]
    async def with_texts(request: Any, handler: Any) -> Any:
        answer = await handler(request)
        if request.path not in ("/i18n", "/api/i18n") or answer.status != 200:
            return answer
        return web.json_response(add_texts(json.loads(answer.body), nodes.NODE_CLASS_MAPPINGS))

    app.on_startup.append(on_startup)
    app.middlewares.append(with_texts)
