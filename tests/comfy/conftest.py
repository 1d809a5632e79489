import shutil
import sys

import pytest
from safetensors.torch import load_file, save_file

from ..conftest import GOLDEN
from . import stub
from .small_models import DIT_FILE, TEXT, VAE_FILE

STUBBED = ("comfy_api", "comfy_api.latest", "comfy", "comfy.model_management", "comfy.utils", "comfy.model_patcher")


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory):
    """ComfyUI's modules as stubs; the nodes are imported after this."""
    root = tmp_path_factory.mktemp("comfyui")
    for name in ("models/SEEDVR2", "models/vae", "models/diffusion_models", "custom_nodes"):
        (root / name).mkdir(parents=True)
    installed = stub.install(root / "models", root / "custom_nodes")
    installed.root = root
    yield installed
    for name in [*STUBBED, "folder_paths", "nodes"]:
        sys.modules.pop(name, None)
    for name in [name for name in sys.modules if name.startswith("seedvr2_engine.comfy")]:
        del sys.modules[name]


@pytest.fixture
def nodes(comfyui):
    """The node classes by id, with nothing loaded and nobody interrupting."""
    from seedvr2_engine.comfy.extension import choose_nodes

    comfyui.management.countdown = None
    comfyui.management.current_loaded_models.clear()
    comfyui.bars.clear()
    return {node.NODE_ID: node for node in choose_nodes({})}


@pytest.fixture(scope="module")
def files(comfyui):
    folder = comfyui.root / "models" / "SEEDVR2"
    save_file({**load_file(GOLDEN / "dit_tiny_3b.safetensors"), "positive_conditioning": TEXT}, folder / DIT_FILE)
    shutil.copy(GOLDEN / "vae_tiny.safetensors", folder / VAE_FILE)
    return folder
