"""As much of ComfyUI as the nodes touch, so that schemas and `execute` are tested without it."""

import sys
import types
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar


class InterruptedByUserError(Exception):
    """ComfyUI's InterruptProcessingException."""


@dataclass
class Slot:
    io_type: str
    id: str | None = None
    options: dict = field(default_factory=dict)


@dataclass
class Schema:
    node_id: str
    display_name: str
    category: str
    description: str
    inputs: list
    outputs: list
    hidden: list = field(default_factory=list)
    is_output_node: bool = False
    is_deprecated: bool = False
    not_idempotent: bool = False


class NodeOutput:
    def __init__(self, *args):
        self.args = args


class ComfyNode:
    hidden = types.SimpleNamespace(unique_id="7")


def slot_type(io_type):
    def make(id=None, **options):
        return Slot(io_type, id, options)

    return types.SimpleNamespace(Input=make, Output=make)


class ModelPatcher:
    def __init__(self, model, load_device, offload_device, size=0):
        self.model, self.load_device, self.offload_device, self.size = model, load_device, offload_device, size
        self.parent = None

    def partially_load(self, device_to, extra_memory=0, force_patch_weights=False):
        return 0

    def detach(self, unpatch_all=True):
        return self.model


class LoadedModel:
    """An entry in the books: it does not keep its model alive."""

    def __init__(self, model):
        self._model = weakref.ref(model)

    @property
    def model(self):
        return self._model()


class ProgressBar:
    made: ClassVar[list] = []

    def __init__(self, total):
        self.updates = []
        ProgressBar.made.append(self)

    def update_absolute(self, value, total=None, preview=None):
        self.updates.append((value, total, preview))


class Management(types.ModuleType):
    """The books of loaded models, without a memory limit."""

    def __init__(self):
        super().__init__("comfy.model_management")
        self.current_loaded_models = []
        self.interrupted = False
        self.countdown = None
        self.freed = []

    def load_models_gpu(self, models, memory_required=0):
        for model in models:
            model.partially_load(model.load_device)
            self.current_loaded_models.append(LoadedModel(model))

    def unload_all_models(self):
        for entry in self.current_loaded_models:
            if entry.model is not None:
                entry.model.detach()
        self.current_loaded_models.clear()

    def free_memory(self, size_bytes, device, keep_loaded=()):
        self.freed.append((size_bytes, device))

    def soft_empty_cache(self):
        pass

    def throw_exception_if_processing_interrupted(self):
        if self.countdown is not None:
            self.countdown -= 1
            if self.countdown < 0:
                self.countdown = None
                raise InterruptedByUserError


def install(models_dir: Path, custom_nodes: Path) -> types.SimpleNamespace:
    """Put the modules in place; returns what tests look at."""
    names = ("Combo", "Int", "Float", "Boolean", "String", "Image", "Latent", "Vae", "Model")
    io = types.ModuleType("comfy_api.latest.io")
    for name in names:
        setattr(io, name, slot_type(name.upper()))
    io.Custom = slot_type
    io.Schema, io.NodeOutput, io.ComfyNode = Schema, NodeOutput, ComfyNode
    io.Hidden = types.SimpleNamespace(unique_id="UNIQUE_ID")
    latest = types.ModuleType("comfy_api.latest")
    latest.io, latest.ComfyExtension = io, type("ComfyExtension", (), {})
    management = Management()
    utils = types.ModuleType("comfy.utils")
    utils.ProgressBar = ProgressBar
    patcher = types.ModuleType("comfy.model_patcher")
    patcher.ModelPatcher = ModelPatcher
    comfy = types.ModuleType("comfy")
    comfy.model_management, comfy.utils, comfy.model_patcher = management, utils, patcher
    folders = types.ModuleType("folder_paths")
    folders.models_dir = str(models_dir)
    folders.folder_names_and_paths = {
        "vae": [str(models_dir / "vae")],
        "diffusion_models": [str(models_dir / "diffusion_models")],
        "custom_nodes": [str(custom_nodes)],
    }
    folders.get_folder_paths = lambda name: folders.folder_names_and_paths[name]
    nodes = types.ModuleType("nodes")
    nodes.NODE_CLASS_MAPPINGS = {}
    nodes.NODE_DISPLAY_NAME_MAPPINGS = {}
    api = types.ModuleType("comfy_api")
    api.latest = latest
    for module in (api, latest, comfy, management, utils, patcher, folders, nodes):
        sys.modules[module.__name__] = module
    return types.SimpleNamespace(management=management, folders=folders, nodes=nodes, bars=ProgressBar.made)
