"""The pack in a real ComfyUI on the CPU.

    COMFYUI_PATH=... python tests/comfy/end_to_end.py [--workflows FOLDER] [--chromium FILE] [--shots FOLDER]

Run it with ComfyUI's Python. --workflows: a folder of workflow files of the public pack, with `example_inputs` in it;
they must validate as they are, and run with the small models. Ends with status 1 where something is wrong.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from browser import Page
from safetensors.torch import load_file, save_file
from server import REPOSITORY, ComfyServer
from workflows import SKIPPED, on_this_machine, prompt_of, upscale_prompt

GOLDEN = REPOSITORY / "tests" / "golden"
DIT = "small_dit.safetensors"

ALLOWED_GROWTH = 0.02
"""Of the server's memory between the second and the tenth run: what an allocator's moods come to."""

_IDS = ("SeedVR2LoadVAEModel", "SeedVR2EngineLoadVAEModel")
_failures = []


def check(name: str, is_right: bool, figures: object = "") -> None:
    """Print a finding and remember a failure."""
    print(f"{'ok  ' if is_right else 'FAIL'} {name}{f': {figures}' if figures != '' else ''}", flush=True)
    if not is_right:
        _failures.append(name)


def clip(frames: int, height: int = 36, width: int = 48) -> torch.Tensor:
    """A moving gradient that 8 bits hold exactly, (N, H, W, 3)."""
    rows, columns, time = torch.meshgrid(*map(torch.arange, (height, width, frames)), indexing="ij")
    planes = [(rows * 5 + time * 9) % 256, (columns * 4 + time * 5) % 256, (rows + columns + time) * 2 % 256]
    return (torch.stack(planes, -1).permute(2, 0, 1, 3).float() / 255).contiguous()


def prepare(base: Path) -> None:
    """The small transformer with a text of its own, and clips."""
    text = torch.randn(7, 64, generator=torch.manual_seed(1))
    tensors = {**load_file(GOLDEN / "dit_tiny_3b.safetensors"), "positive_conditioning": text}
    save_file(tensors, base / "models" / "SEEDVR2" / DIT)
    for count in (6, 41):
        save_file({"frames": clip(count)}, base / "input" / f"clip{count}.safetensors")


async def frames_equal_the_command_lines(server: ComfyServer) -> None:
    run = await server.run(upscale_prompt("clip6.safetensors", "first.safetensors", DIT))
    check("the workflow finishes", run.outcome == "execution_success", run.sentence if run.detail else "")
    check("progress and previews arrive", len(run.progress) > 6 and run.previews > 0,
          f"{len(run.progress)} messages, {run.previews} pictures")  # fmt: skip
    frames = load_file(server.base / "output" / "first.safetensors")["frames"]
    folder = server.base / "cli"
    write_pictures(load_file(server.base / "input" / "clip6.safetensors")["frames"], folder / "in")
    command = [
        sys.executable, "-m", "seedvr2_engine", "upscale", str(folder / "in"), str(folder / "out_%03d.png"),
        "--dit", str(server.base / "models" / "SEEDVR2" / DIT), "--vae", "nano", "--device", "cpu",
        "--resolution", "64", "--chunk-frames", "5", "--overlap", "1", "--color", "lab", "--seed", "42",
        "--bit-depth", "16",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    check("the command line does the same", done.returncode == 0, done.stderr[-300:] if done.returncode else "")
    if done.returncode == 0:
        other = read_pictures(folder)
        difference = (frames - other).abs().max().item()
        check("frames equal the command line's", difference <= 0.51 / 65535, f"largest difference {difference:.2e}")


def write_pictures(frames: torch.Tensor, folder: Path) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray((frame * 255).round().byte().numpy()).save(folder / f"{index:03d}.png")


def read_pictures(folder: Path) -> torch.Tensor:
    """16-bit PNGs, which PIL reads with 8 bits only."""
    sys.path.insert(0, str(REPOSITORY))
    from seedvr2_engine.video import open_source

    with open_source(str(folder / "out_%03d.png")) as source:
        return torch.stack([frame.rgb.movedim(0, -1) for frame in source])


async def interrupts(server: ComfyServer) -> None:
    whole = await server.run(upscale_prompt("clip41.safetensors", "long.safetensors", DIT, seed=1))
    gaps = [after - before for before, after in zip(whole.progress, whole.progress[1:], strict=False)]
    for stop_after in (3, len(whole.progress) // 2):
        run = await server.run(
            upscale_prompt("clip41.safetensors", "none.safetensors", DIT, seed=2), stop_after=stop_after
        )
        answered = run.stopped_after if run.stopped_after is not None else 99.0
        check("the button stops within a slice", run.outcome == "execution_interrupted" and answered <= max(gaps) + 0.5,
              f"{answered:.2f} s at message {stop_after}; the longest step takes {max(gaps):.2f} s")  # fmt: skip
    check("nothing of an interrupted run is written", not (server.base / "output" / "none.safetensors").exists())


async def refuses(server: ComfyServer) -> None:
    cases = {
        "unknown model": ({"3": {"model": "no_such_vae.gguf"}}, "none of the offered files"),
        "wrong device": ({"2": {"device": "cuda:3"}}, "device: cuda:3 was asked for"),
        "tile smaller than its overlap": (
            {"3": {"decode_tiled": True, "decode_tile_size": 64, "decode_tile_overlap": 96}}, "tile overlap"),
        "offline without the file": ({"3": {"model": "ema_vae_fp16.safetensors"}}, "HF_HUB_OFFLINE"),
        "damaged download": ({"2": {"model": "seedvr2_ema_3b-Q8_0.gguf"}}, "the download is damaged"),
        "empty batch": ({"1": {"file": "empty.safetensors"}}, "at least one frame"),
    }  # fmt: skip
    (server.base / "models" / "SEEDVR2" / "seedvr2_ema_3b-Q8_0.gguf").write_bytes(b"GGUF broken")
    save_file({"frames": torch.zeros(0, 8, 8, 3)}, server.base / "input" / "empty.safetensors")
    for name, (changes, sentence) in cases.items():
        prompt = upscale_prompt("clip6.safetensors", "bad.safetensors", DIT)
        for node, inputs in changes.items():
            prompt[node]["inputs"].update(inputs)
        run = await server.run(prompt)
        check(f"{name}: one sentence", run.outcome in ("invalid", "execution_error") and sentence in run.sentence,
              run.sentence.strip()[:220])  # fmt: skip
    run = await server.run(upscale_prompt("clip6.safetensors", "after.safetensors", DIT, seed=77))
    check("the next run works", run.outcome == "execution_success")


async def stays_small(server: ComfyServer) -> None:
    sizes = []
    for seed in range(100, 110):
        await server.run(upscale_prompt("clip6.safetensors", f"run{seed}.safetensors", DIT, seed=seed))
        sizes.append(server.resident_bytes())
    growth = (sizes[9] - sizes[1]) / sizes[1]
    check("ten runs end at the memory of the second", growth <= ALLOWED_GROWTH,
          f"{sizes[1] / 1e6:.0f} MB after two, {sizes[9] / 1e6:.0f} MB after ten")  # fmt: skip
    await server.post("/free", {"unload_models": True})
    await server.run(upscale_prompt("clip6.safetensors", "unloaded.safetensors", DIT, seed=100))
    before, after = (load_file(server.base / "output" / f"{name}.safetensors") for name in ("run100", "unloaded"))
    check("unloaded models come back with the same frames", torch.equal(before["frames"], after["frames"]))


async def latents_go_through_comfyuis_nodes(server: ComfyServer) -> None:
    prompt = {
        "1": {"class_type": "ReadFrames", "inputs": {"file": "clip6.safetensors"}},
        "2": {"class_type": "SeedVR2LoadVAEModel", "inputs": {"model": "nano", "device": "cpu"}},
        "3": {"class_type": "SeedVR2VAEEncode", "inputs": {"image": ["1", 0], "vae": ["2", 0]}},
        "4": {"class_type": "RepeatLatentBatch", "inputs": {"samples": ["3", 0], "amount": 2}},
        "5": {"class_type": "LatentBatch", "inputs": {"samples1": ["3", 0], "samples2": ["4", 0]}},
        "6": {"class_type": "SeedVR2VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["2", 0]}},
        "7": {"class_type": "WriteFrames", "inputs": {"image": ["6", 0], "file": "repeated.safetensors"}},
        "8": {"class_type": "SaveLatent", "inputs": {"samples": ["3", 0], "filename_prefix": "clip"}},
        "9": {"class_type": "SeedVR2VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["2", 0]}},
        "10": {"class_type": "WriteFrames", "inputs": {"image": ["9", 0], "file": "once.safetensors"}},
    }
    run = await server.run(prompt)
    check("latents go through Repeat and Batch", run.outcome == "execution_success", run.sentence[:220])
    once, repeated = (
        load_file(server.base / "output" / f"{name}.safetensors")["frames"] for name in ("once", "repeated")
    )
    check("every clip of a batch is the clip", torch.equal(repeated, once.repeat(3, 1, 1, 1)))
    saved = next((server.base / "output").glob("clip_*.latent"))
    shutil.copy(saved, server.base / "input" / "clip.latent")
    run = await server.run(
        {
            "1": {"class_type": "LoadLatent", "inputs": {"latent": "clip.latent"}},
            "2": {"class_type": "SeedVR2LoadVAEModel", "inputs": {"model": "nano", "device": "cpu"}},
            "3": {"class_type": "SeedVR2VAEDecode", "inputs": {"samples": ["1", 0], "vae": ["2", 0]}},
            "4": {"class_type": "WriteFrames", "inputs": {"image": ["3", 0], "file": "loaded.safetensors"}},
        }
    )
    check("a saved latent loads", run.outcome == "execution_success", run.sentence[:220])
    loaded = load_file(server.base / "output" / "loaded.safetensors")["frames"]
    same = loaded[: len(once), : once.shape[1], : once.shape[2]]
    check("a saved latent is the clip", torch.equal(same, once))


async def public_workflows(server: ComfyServer, folder: Path) -> None:
    for file in (folder / "example_inputs").iterdir():
        shutil.copy(file, server.base / "input")
    shutil.copy(next((folder / "example_inputs").glob("*.png")), server.base / "input" / "example.png")
    definitions = await server.get("/object_info")
    for file in sorted(folder.glob("*.json")):
        prompt = prompt_of(file, definitions)
        unchanged = await server.run(prompt)
        check(f"{file.stem} validates unchanged", unchanged.outcome != "invalid",
              f"then, on a machine without a GPU: {unchanged.sentence.strip()[:160]}")  # fmt: skip
        run = await server.run(on_this_machine(prompt, DIT, resolution=64))
        check(f"{file.stem} runs with the small models", run.outcome == "execution_success", f"{run.seconds:.1f} s")


def can_run(file: Path, definitions: dict) -> bool:
    """Whether this ComfyUI has the nodes of a workflow: older releases have no SeedVR2 of their own."""
    types = {node["type"] for node in json.loads(file.read_text(encoding="utf-8"))["nodes"]}
    return types <= {*definitions, *SKIPPED}


async def in_the_browser(server: ComfyServer, chromium: str, shots: Path, folder: Path | None) -> None:
    definitions = await server.get("/object_info")
    examples = (REPOSITORY / "example_workflows").glob("*.json")
    files = [file for file in sorted(examples) if can_run(file, definitions)]
    files += sorted(folder.glob("*.json") if folder else ())
    shots.mkdir(parents=True, exist_ok=True)
    async with Page(chromium, server.address) as page:
        for file in files:
            prompt, missing = await page.load(file)
            await page.screenshot(shots / f"{file.stem}.png")
            own = prompt_of(file, definitions)
            check(f"{file.stem} opens in the browser", not missing, missing or shots / f"{file.stem}.png")
            ours = {key: node for key, node in prompt.items() if node["class_type"].startswith("SeedVR2")}
            expected = {key: node["inputs"] for key, node in own.items() if key in ours}
            found = {key: {name: node["inputs"].get(name) for name in expected[key]} for key, node in ours.items()}
            check(f"{file.stem} gives the prompt that its values mean", found == expected and bool(ours))
            status, answer = await server.post("/prompt", {"prompt": prompt})
            is_known = status == 200 or "Invalid image file" in str(answer) or "Invalid video file" in str(answer)
            check(f"{file.stem} validates as the browser sends it", is_known, "" if is_known else answer)
            await server.post("/interrupt")


async def texts_are_served(server: ComfyServer) -> None:
    texts = await server.get("/i18n")
    for language in ("en", "zh"):
        check(f"names in {language}", set(_IDS) <= set(texts.get(language, {}).get("nodeDefs", {})))
        page = f"/extensions/seedvr2_engine/docs/SeedVR2LoadVAEModel/{language}.md"
        check(f"help page in {language}", await server.status_of(page) == 200, page)
    templates = await server.get("/workflow_templates")
    check("workflows are offered as templates", len(templates.get("seedvr2_engine", ())) == 4)


def log_is_clean(server: ComfyServer) -> None:
    text = server.log.read_text()
    imported = [line for line in text.splitlines() if "custom_nodes/seedvr2_engine" in line and "seconds" in line]
    check(
        "the pack is imported", bool(imported) and "IMPORT FAILED" not in "".join(imported), "".join(imported).strip()
    )
    for line in ("[VAE Loader] Loading VAE model: nano", "[VAE Loader] Format: GGUF", "_ENGINE]"):
        check(f"the console shows {line}", line in text)


async def main() -> int:
    """Run all checks against a fresh server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workflows", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--shots", type=Path, default=Path("shots"))
    arguments = parser.parse_args()
    checkout = Path(os.environ["COMFYUI_PATH"])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        async with ComfyServer(checkout, Path(folder) / "base") as server:
            prepare(server.base)
            await frames_equal_the_command_lines(server)
            errors = server.log.read_text()
            check("no errors from the pack in the log", "Traceback" not in errors and "ERROR" not in errors)
            await interrupts(server)
            await refuses(server)
            await stays_small(server)
            await latents_go_through_comfyuis_nodes(server)
            if arguments.workflows:
                await public_workflows(server, arguments.workflows)
            if arguments.chromium:
                await in_the_browser(server, arguments.chromium, arguments.shots, arguments.workflows)
            await texts_are_served(server)
            log_is_clean(server)
    print(f"{len(_failures)} failures")
    return 1 if _failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
