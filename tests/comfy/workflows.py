"""Prompts for the server: the pack's own, and workflow files as the browser saves them."""

import json
from pathlib import Path

SKIPPED = ("Note", "MarkdownNote")
BYPASSED = 4
CONTROL = ("fixed", "increment", "decrement", "randomize")


def upscale_prompt(source: str, target: str, dit: str, **inputs: object) -> dict:
    """ReadFrames -> Video Upscaler -> WriteFrames."""
    settings = {
        "seed": 42, "resolution": 64, "max_resolution": 0, "batch_size": 5, "uniform_batch_size": False,
        "temporal_overlap": 1, "prepend_frames": 0, "color_correction": "lab", **inputs,
    }  # fmt: skip
    return {
        "1": {"class_type": "ReadFrames", "inputs": {"file": source}},
        "2": {"class_type": "SeedVR2LoadDiTModel", "inputs": {"model": dit, "device": "cpu"}},
        "3": {"class_type": "SeedVR2LoadVAEModel", "inputs": {"model": "nano", "device": "cpu"}},
        "4": {
            "class_type": "SeedVR2VideoUpscaler",
            "inputs": {"image": ["1", 0], "dit": ["2", 0], "vae": ["3", 0], **settings},
        },
        "5": {"class_type": "WriteFrames", "inputs": {"image": ["4", 0], "file": target}},
    }


def prompt_of(file: Path, definitions: dict) -> dict:
    """The API prompt of a saved workflow, as the browser makes it: widgets by their order, links by their ids.

    definitions: the server's `/object_info`. Muted nodes are left out; a bypassed one hands on its input of the same
    type.
    """
    workflow = json.loads(file.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in workflow["nodes"] if node["type"] not in SKIPPED and not node.get("mode")}
    bypassed = {node["id"]: node for node in workflow["nodes"] if node.get("mode") == BYPASSED}
    sources = {link[0]: (link[1], link[2]) for link in workflow["links"]}

    def origin_of(link: int) -> tuple[int, int] | None:
        origin, slot = sources[link]
        if origin in nodes:
            return origin, slot
        if origin not in bypassed:
            return None
        kind = bypassed[origin]["outputs"][slot]["type"]
        passing = [own["link"] for own in bypassed[origin]["inputs"] if own["type"] == kind and own.get("link")]
        return origin_of(passing[0]) if passing else None

    prompt = {}
    for node in nodes.values():
        definition = definitions[node["type"]]
        links = {slot["name"]: slot["link"] for slot in node.get("inputs", []) if slot.get("link") is not None}
        inputs = _widgets(definition, list(node.get("widgets_values") or []))
        for name, link in links.items():
            origin = origin_of(link)
            if origin is not None:
                inputs[name] = [str(origin[0]), origin[1]]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def _widgets(definition: dict, values: list) -> dict:
    inputs = {}
    for group in ("required", "optional"):
        for name, spec in definition["input"].get(group, {}).items():
            kind, options = spec[0], spec[1] if len(spec) > 1 else {}
            is_widget = isinstance(kind, list) or kind in ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN")
            if not is_widget or options.get("forceInput") or not values:
                continue
            inputs[name] = values.pop(0)
            if name in ("seed", "noise_seed") and values and values[0] in CONTROL:
                values.pop(0)
    return inputs


def on_this_machine(prompt: dict, dit: str, *, resolution: int) -> dict:
    """The same prompt with the small models, on the CPU, at a small size; nothing else is changed."""
    changed = json.loads(json.dumps(prompt))
    for node in changed.values():
        inputs = node["inputs"]
        if node["class_type"] in ("SeedVR2LoadDiTModel", "SeedVR2LoadVAEModel"):
            inputs["device"] = "cpu"
            inputs["model"] = dit if node["class_type"] == "SeedVR2LoadDiTModel" else "nano"
        if node["class_type"] == "SeedVR2VideoUpscaler":
            inputs["resolution"] = resolution
            inputs["max_resolution"] = min(inputs["max_resolution"], 2 * resolution)
    return changed
