"""What saved workflows rely on: ids, inputs, defaults, socket types and the order of the values."""

import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LIMITS = ("min", "max", "step")
# (id, socket or widget type, default, optional) of the public pack at release 2.5.24, whose workflows must load.
PUBLIC_INPUTS = {
    "SeedVR2LoadDiTModel": [
        ("model", "COMBO", "seedvr2_ema_3b_fp8_e4m3fn.safetensors", False),
        ("device", "COMBO", "cpu", False),
        ("blocks_to_swap", "INT", 0, True),
        ("swap_io_components", "BOOLEAN", False, True),
        ("offload_device", "COMBO", "none", True),
        ("cache_model", "BOOLEAN", False, True),
        ("attention_mode", "COMBO", "sdpa", True),
        ("torch_compile_args", "TORCH_COMPILE_ARGS", None, True),
    ],
    "SeedVR2LoadVAEModel": [
        ("model", "COMBO", "ema_vae_fp16.safetensors", False),
        ("device", "COMBO", "cpu", False),
        ("encode_tiled", "BOOLEAN", False, True),
        ("encode_tile_size", "INT", 1024, True),
        ("encode_tile_overlap", "INT", 128, True),
        ("decode_tiled", "BOOLEAN", False, True),
        ("decode_tile_size", "INT", 1024, True),
        ("decode_tile_overlap", "INT", 128, True),
        ("tile_debug", "COMBO", "false", True),
        ("offload_device", "COMBO", "none", True),
        ("cache_model", "BOOLEAN", False, True),
        ("torch_compile_args", "TORCH_COMPILE_ARGS", None, True),
    ],
    "SeedVR2TorchCompileSettings": [
        ("backend", "COMBO", "inductor", False),
        ("mode", "COMBO", "default", False),
        ("fullgraph", "BOOLEAN", False, False),
        ("dynamic", "BOOLEAN", False, False),
        ("dynamo_cache_size_limit", "INT", 64, False),
        ("dynamo_recompile_limit", "INT", 128, False),
    ],
    "SeedVR2VideoUpscaler": [
        ("image", "IMAGE", None, False),
        ("dit", "SEEDVR2_DIT", None, False),
        ("vae", "SEEDVR2_VAE", None, False),
        ("seed", "INT", 42, False),
        ("resolution", "INT", 1080, False),
        ("max_resolution", "INT", 0, False),
        ("batch_size", "INT", 5, False),
        ("uniform_batch_size", "BOOLEAN", False, False),
        ("temporal_overlap", "INT", 0, True),
        ("prepend_frames", "INT", 0, True),
        ("color_correction", "COMBO", "lab", False),
        ("input_noise_scale", "FLOAT", 0.0, True),
        ("latent_noise_scale", "FLOAT", 0.0, True),
        ("offload_device", "COMBO", "cpu", True),
        ("enable_debug", "BOOLEAN", False, True),
    ],
}
ADDED = {
    "SeedVR2LoadVAEModel": [
        ("enable_blackwell_optimization", "BOOLEAN", True, True),
        ("precision", "COMBO", "auto", True),
    ],
    "SeedVR2VideoUpscaler": [("dit_precision", "COMBO", "auto", True)],
}
PUBLIC_LIMITS = {
    ("SeedVR2LoadDiTModel", "blocks_to_swap"): (0, 36, 1),
    ("SeedVR2LoadVAEModel", "encode_tile_size"): (64, None, 32),
    ("SeedVR2LoadVAEModel", "decode_tile_overlap"): (0, None, 32),
    ("SeedVR2TorchCompileSettings", "dynamo_cache_size_limit"): (0, 1024, 1),
    ("SeedVR2VideoUpscaler", "seed"): (0, 2**32 - 1, 1),
    ("SeedVR2VideoUpscaler", "resolution"): (16, 16384, 2),
    ("SeedVR2VideoUpscaler", "max_resolution"): (0, 16384, 2),
    ("SeedVR2VideoUpscaler", "batch_size"): (1, 16384, 4),
    ("SeedVR2VideoUpscaler", "temporal_overlap"): (0, 16, 1),
    ("SeedVR2VideoUpscaler", "prepend_frames"): (0, 32, 1),
    ("SeedVR2VideoUpscaler", "input_noise_scale"): (0.0, 1.0, 0.001),
}
OUTPUTS = {
    "SeedVR2LoadDiTModel": "SEEDVR2_DIT",
    "SeedVR2LoadVAEModel": "SEEDVR2_VAE",
    "SeedVR2TorchCompileSettings": "TORCH_COMPILE_ARGS",
    "SeedVR2VideoUpscaler": "IMAGE",
}


@pytest.mark.parametrize("node_id", PUBLIC_INPUTS)
def test_public_nodes_keep_inputs_defaults_and_order(nodes, node_id):
    schema = nodes[node_id].define_schema()
    found = [
        (slot.id, slot.io_type, slot.options.get("default"), bool(slot.options.get("optional")))
        for slot in schema.inputs
    ]
    assert found == PUBLIC_INPUTS[node_id] + ADDED.get(node_id, [])
    assert [slot.io_type for slot in schema.outputs] == [OUTPUTS[node_id]]
    assert schema.node_id == node_id
    assert schema.category == "SEEDVR2"


@pytest.mark.parametrize(("node_id", "name"), PUBLIC_LIMITS)
def test_numbers_keep_their_limits(nodes, node_id, name):
    slot = next(slot for slot in nodes[node_id].define_schema().inputs if slot.id == name)
    assert tuple(slot.options.get(limit) for limit in LIMITS) == PUBLIC_LIMITS[node_id, name]


def test_choices_of_the_public_pack_are_offered(nodes):
    def options(node_id, name):
        return next(slot for slot in nodes[node_id].define_schema().inputs if slot.id == name).options["options"]

    methods = {"lab", "wavelet", "wavelet_adaptive", "hsv", "adain", "none"}
    assert set(options("SeedVR2VideoUpscaler", "color_correction")) == methods
    assert {"sdpa", "flash_attn_2", "sageattn_3"} < set(options("SeedVR2LoadDiTModel", "attention_mode"))
    assert "seedvr2_ema_7b_sharp_fp16.safetensors" in options("SeedVR2LoadDiTModel", "model")
    assert {"ema_vae_fp16.safetensors", "nano"} <= set(options("SeedVR2LoadVAEModel", "model"))


def test_ids_of_another_pack_are_left_to_it(nodes):
    from seedvr2_engine.comfy.extension import choose_nodes

    schemas = {schema.node_id: schema for schema in (n.define_schema() for n in choose_nodes({"SeedVR2VideoUpscaler"}))}
    assert "SeedVR2VideoUpscaler" not in schemas
    assert not schemas["SeedVR2EngineVideoUpscaler"].is_deprecated
    # Where the public id is free, the own one only opens workflows.
    assert "SeedVR2LoadVAEModel" in schemas
    assert schemas["SeedVR2EngineLoadVAEModel"].is_deprecated


def test_ids_are_settled_by_what_was_loaded(comfyui, nodes, caplog):
    from seedvr2_engine.comfy.extension import choose_nodes, settle

    # A pack whose folder is there and which does not load takes nothing, whatever the folder's name.
    broken = comfyui.root / "custom_nodes" / "ComfyUI-SeedVR2_VideoUpscaler" / "src" / "interfaces"
    broken.mkdir(parents=True)
    chosen = choose_nodes({})
    classes, titles = {node.NODE_ID: node for node in chosen}, {}
    settle(classes, titles, chosen)
    assert set(PUBLIC_INPUTS) < set(classes)
    assert (titles, caplog.text) == ({}, "")
    # One that is loaded later takes its ids over.
    theirs = type("Theirs", (), {})
    classes["SeedVR2VideoUpscaler"] = theirs
    for node in chosen:
        node.RELATIVE_PYTHON_MODULE = "custom_nodes.ours"
    settle(classes, titles, chosen)
    assert classes["SeedVR2VideoUpscaler"] is theirs
    offered = classes["SeedVR2EngineVideoUpscaler"]
    assert not offered.define_schema().is_deprecated
    assert offered.RELATIVE_PYTHON_MODULE == "custom_nodes.ours"
    assert titles == {"SeedVR2EngineVideoUpscaler": "SeedVR2 Video Upscaler (Engine)"}
    assert "belongs to another pack" in caplog.text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_texts_are_for_this_packs_nodes_only(nodes, language):
    from seedvr2_engine.comfy.extension import add_texts

    file = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    assert not set(PUBLIC_INPUTS) & set(file)
    theirs = {**nodes, "SeedVR2VideoUpscaler": type("Theirs", (), {})}
    texts = add_texts({language: {"nodeDefs": file}}, theirs)[language]["nodeDefs"]
    assert "SeedVR2VideoUpscaler" not in texts
    assert texts["SeedVR2EngineVideoUpscaler"]["display_name"].endswith(" (Engine)")
    assert not texts["SeedVR2LoadVAEModel"]["display_name"].endswith("(Engine)")


def test_both_ids_of_a_node_have_the_same_page():
    for node_id in PUBLIC_INPUTS:
        for page in (ROOT / "web" / "docs" / node_id).iterdir():
            other = ROOT / "web" / "docs" / node_id.replace("SeedVR2", "SeedVR2Engine", 1) / page.name
            assert other.read_bytes() == page.read_bytes()


def test_the_repository_is_a_custom_node_folder(comfyui):
    # As ComfyUI loads it: under the folder's path as its name.
    name = str(ROOT).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        extension = asyncio.run(module.comfy_entrypoint())
        ids = [node.define_schema().node_id for node in asyncio.run(extension.get_node_list())]
    finally:
        for loaded in [loaded for loaded in sys.modules if loaded.startswith(name)]:
            del sys.modules[loaded]
    own = {f"SeedVR2{name}" for name in ("VAEEncode", "VAEDecode", "ConvertToGGUF", "EngineVAE", "EngineModel")}
    also = {node_id.replace("SeedVR2", "SeedVR2Engine", 1) for node_id in PUBLIC_INPUTS}
    assert set(ids) == {*PUBLIC_INPUTS, *also, *own}
    assert (ROOT / module.WEB_DIRECTORY).is_dir()


def test_importing_the_folder_imports_nothing():
    code = (
        "import sys, __init__; print([name for name in sys.modules if name.split('.')[0] in "
        "('torch', 'numpy', 'seedvr2_engine', 'comfy_api', 'triton')])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_node_and_input_has_a_name_and_a_page(nodes, language):
    from seedvr2_engine.comfy.extension import add_texts

    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    texts = add_texts({language: {"nodeDefs": texts}}, nodes)[language]["nodeDefs"]
    for node_id, node in nodes.items():
        assert set(texts[node_id]["inputs"]) == {slot.id for slot in node.define_schema().inputs}
        assert texts[node_id]["display_name"]
        assert (ROOT / "web" / "docs" / node_id / f"{language}.md").is_file()


@pytest.mark.parametrize("file", sorted((ROOT / "example_workflows").glob("*.json")), ids=lambda file: file.stem)
def test_examples_have_this_packs_inputs_and_whole_links(nodes, file):
    workflow = json.loads(file.read_text(encoding="utf-8"))
    by_id = {node["id"]: node for node in workflow["nodes"]}
    for link, origin, out, target, into, kind in workflow["links"]:
        assert link in by_id[origin]["outputs"][out]["links"]
        assert by_id[target]["inputs"][into]["link"] == link
        assert by_id[origin]["outputs"][out]["type"] == by_id[target]["inputs"][into]["type"] == kind
    for node in workflow["nodes"]:
        if node["type"] in nodes:
            slots = nodes[node["type"]].define_schema().inputs
            assert {slot["name"] for slot in node["inputs"]} <= {slot.id for slot in slots}
            widgets = [slot for slot in slots if slot.io_type in ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN")]
            assert len(node["widgets_values"]) <= len(widgets) + 1
