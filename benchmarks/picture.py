"""How far the engine's pictures are from FP32, in every number format, layer by layer, and to look at.

`python -m benchmarks.picture nano` on a CPU, with the reference kernels; on a GPU `--train 200` first trains a VAE of
the public widths for so many seconds. Writes OUT/picture.json after every stage, OUT/sensitivity.png and OUT/crops.png.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.contents import contents
from benchmarks.picture_recipes import (
    CARD,
    EIGHT_BIT,
    FORMATS,
    GOALS_DB,
    PX,
    RECIPES,
    TIMED,
    UPSAMPLERS,
    cheapest,
    jobs,
    keeping,
    warm,
)
from benchmarks.picture_sheet import crops, sensitivity_plot
from benchmarks.rounding import SCHEMES, RoundedDecoder
from seedvr2_engine.engine.accuracy.check import DEFAULT_MIN_PSNR_DB, check_accuracy
from seedvr2_engine.engine.accuracy.fp16_scaling import measure_scaling
from seedvr2_engine.engine.accuracy.sensitivity import (
    decoder_layers,
    decoder_shares,
    mean_squared_error,
    paired_layers,
    picture,
)
from seedvr2_engine.engine.vae.backend import reference_backend, triton_backend
from seedvr2_engine.engine.vae.engine import EngineOptions, VAEEngine
from seedvr2_engine.errors import SeedVR2Error
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.model import VideoVAE
from seedvr2_engine.plan.gpus import device_spec
from seedvr2_engine.quality.metrics import decibel
from seedvr2_engine.quant import QuantRecipe


@dataclass
class Run:
    """What is measured, with what, and what was found."""

    vae: VideoVAE
    device: torch.device
    out: Path
    clips: dict[str, list[Tensor]]
    deadline: float
    high: Literal["fp16", "bf16"] = "fp16"
    """Of what is between the layers of an 8-bit recipe, and of those that are kept."""
    results: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.latents = {kind: [self.vae.encode(clip) for clip in clips] for kind, clips in self.clips.items()}
        self.exact = {kind: [picture(self.vae.decode(z)) for z in zs] for kind, zs in self.latents.items()}
        on_gpu = self.device.type == "cuda"
        self.backend = triton_backend() if on_gpu else reference_backend()
        self.spec = device_spec(self.device) if on_gpu else CARD
        self.scaling = measure_scaling(self.vae, self.spec)
        self.engines: dict[str, VAEEngine] = {}

    def build(self, recipe: QuantRecipe, *, by_reference: bool = False, graphs: bool = False) -> VAEEngine:
        """An engine; graphs would cost more than the few runs that most serve."""
        spec, backend = (CARD, reference_backend()) if by_reference else (self.spec, self.backend)
        options = EngineOptions(uses_graphs=graphs, scaling=self.scaling)
        return VAEEngine(self.vae, recipe, spec, backend, device=self.device, options=options)

    def keeping(self, format: str, names: Iterable[str]) -> VAEEngine:
        """The format's engine with these layers in 16 bits; the last one that was asked for is used up."""
        recipe = keeping(format, names, self.high)
        engine = self.engines.get(format)
        self.engines[format] = self.build(recipe) if engine is None else engine.with_recipe(recipe)
        return self.engines[format]

    def decibels(self, engine: VAEEngine | RoundedDecoder, *, few: bool = False) -> dict[str, float]:
        """Kind -> PSNR against FP32 of all clips (few: of the first) together; `worst` is of the worst clip."""
        most = 1 if few else None
        errors = {
            kind: torch.stack([
                mean_squared_error(picture(engine.decode(z)), y)
                for z, y in zip(zs[:most], self.exact[kind][:most], strict=True)
            ])
            for kind, zs in self.latents.items()
        }  # fmt: skip
        row = {kind: decibel(error.mean().item()) for kind, error in errors.items()}
        return row | {"worst": decibel(max(error.max().item() for error in errors.values()))}

    def stage(self, name: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Keep and print what a stage finds; one that fails is noted, and the others go on."""
        try:
            found = find()
        except (RuntimeError, SeedVR2Error) as error:
            traceback.print_exc()
            found = {"failed": str(error)}
        self.results[name] = found
        (self.out / "picture.json").write_text(json.dumps(self.results, indent=1) + "\n")
        say(f"[{name}]")
        for key, value in found.items():
            figures = " ".join(f"{k} {v:.2f}" for k, v in value.items()) if isinstance(value, dict) else value
            print(f"  {key:44} {figures}", flush=True)
        return found

    @property
    def is_late(self) -> bool:
        """Whether no further stage should begin."""
        return time.monotonic() > self.deadline


def formats(run: Run, wanted: Iterable[str], *, by_reference: bool) -> dict[str, dict[str, float]]:
    """Every format as it comes; on a GPU the reference kernels' too, one clip a kind: MXFP8 has no other way."""
    rows = {format: run.decibels(run.keeping(format, ())) for format in wanted}
    if by_reference and run.device.type == "cuda":
        for format in ("fp8", "mxfp8", "int8"):
            engine = run.build(keeping(format, (), run.high), by_reference=True)
            rows[f"{format} by the reference kernels, few"] = run.decibels(engine, few=True)
    for format in EIGHT_BIT if by_reference else ():
        rows[f"{format}, few"] = run.decibels(run.engines[format], few=True)
    return rows


def reconstructions(run: Run) -> dict[str, dict[str, float]]:
    """What the model itself makes of the clips."""
    rows = {}
    for kind, clips in run.clips.items():
        pairs = zip(clips, run.exact[kind], strict=True)
        errors = [(picture(clip) - exact).square().mean() for clip, exact in pairs]
        rows[kind] = {"psnr": decibel(torch.stack(errors).mean().item())}
    return rows


def encoders(run: Run) -> dict[str, dict[str, float]]:
    """The encoder's latents: signal to error in dB, and the picture that the plain decoder makes of them."""
    rows = {}
    for format in FORMATS:
        engine = run.engines[format]
        noise, signal, errors = 0.0, 0.0, []
        for kind, clips in run.clips.items():
            latent = engine.encode(clips[0])
            exact = run.latents[kind][0]
            noise += (latent - exact).square().sum().item()
            signal += exact.square().sum().item()
            errors.append((picture(run.vae.decode(latent)) - run.exact[kind][0]).square().mean().item())
        rows[format] = {"latent": decibel(noise / signal), "picture": decibel(sum(errors) / len(errors))}
        rows[format]["worst picture"] = decibel(max(errors))
    return rows


def sensitivities(run: Run, format: str) -> dict[str, dict[str, float]]:
    """Layer -> PSNR with that layer alone in 8 bits."""
    names = list(decoder_layers(run.vae.decoder))
    return {name: run.decibels(run.keeping(format, [n for n in names if n != name]), few=True) for name in names}


def recipes(run: Run, format: str, alone: Mapping[str, Mapping[str, float]] | None) -> dict[str, dict[str, float]]:
    """What keeping some layers in 16 bits brings, and how much of the arithmetic that is, in per cent."""
    costs = decoder_shares(run.vae.config, run.spec)
    tried = dict(RECIPES)
    if alone:
        errors = {name: 10 ** (-min(row.values()) / 10) for name, row in alone.items()}
        tried |= {f"cheapest to {goal:.0f} dB": tuple(cheapest(errors, costs, goal)) for goal in GOALS_DB}
    rows = {}
    for title, kept in tried.items():
        cost = sum(costs[name] for name in decoder_layers(run.vae.decoder) if name.startswith(kept)) if kept else 0.0
        rows[title] = run.decibels(run.keeping(format, kept)) | {"share": 100 * cost, "layers": float(len(kept))}
    return rows


def schemes(run: Run, alone: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Other ways to round, emulated: all layers, and all but the six most sensitive and the upsamplers."""
    decoder = RoundedDecoder(run.vae)
    rows: dict[str, dict[str, float]] = {}
    for title, rounding in SCHEMES.items():
        decoder.use(rounding)
        rows[title] = run.decibels(decoder, few=True)
        order = sorted(alone.get(rounding.format, {}), key=lambda name: alone[rounding.format][name]["worst"])
        hard = set(order[:6]) | set(UPSAMPLERS)
        decoder.use(rounding, [name for name in decoder.layers if name not in hard])
        rows[f"{title}; easy layers"] = run.decibels(decoder, few=True)
        if run.is_late:
            break
    return rows


def checked(run: Run, format: str, limit_db: float) -> dict[str, Any]:
    """The accuracy check's choice, and what it is worth on pictures that the check has not seen."""

    def build(recipe: QuantRecipe, previous: VAEEngine | None) -> VAEEngine:
        return run.build(recipe) if previous is None else previous.with_recipe(recipe)

    costs = decoder_shares(run.vae.config, run.spec)
    recipe = keeping(format, (), run.high)
    paired = paired_layers(run.vae.config, recipe, run.spec)
    result, engine = check_accuracy(run.vae, recipe, build, min_psnr_db=limit_db, costs=costs, paired=paired)
    kept = {layer.name: layer.psnr_db for layer in result.kept}
    facts = {"share": 100 * sum(costs[name] for name in kept), "seconds": result.seconds}
    figures = {"before": result.before_db, "after": result.psnr_db}
    return {"figures": figures | facts, "pictures": run.decibels(engine), "kept": kept}


def times(run: Run) -> dict[str, dict[str, float]]:
    """Milliseconds of a decode of 1280x720, 21 frames, FP8: median and fastest of five, after two."""
    latent = torch.randn(1, 16, 6, 90, 160, device=run.device, generator=torch.Generator(run.device).manual_seed(0))
    rows = {}
    engine = None
    for title in TIMED:
        recipe = keeping("fp8", RECIPES[title], run.high)
        engine = run.build(recipe, graphs=True) if engine is None else engine.with_recipe(recipe)
        spent = []
        for _ in range(7):
            torch.cuda.synchronize()
            began = time.perf_counter()
            engine.decode(latent)
            torch.cuda.synchronize()
            spent.append(1e3 * (time.perf_counter() - began))
        rows[title] = {"ms": statistics.median(spent[2:]), "fastest": min(spent[2:])}
    return rows


def say(text: str) -> None:
    """A line with the time."""
    print(f"{time.monotonic() - _BEGAN:6.1f} s  {text}", flush=True)


_BEGAN = time.monotonic()


def load(options: argparse.Namespace, device: torch.device) -> VideoVAE:
    """The model to measure, FP32."""
    if options.train is None:
        from seedvr2_engine.loading import load_vae

        return load_vae(options.model, device=device)
    from benchmarks.full_width import train

    config = VAEConfig(block_out_channels=tuple(options.widths))
    waiting = []
    if device.type == "cuda":
        # Kernels are compiled while the GPU trains and the processor has nothing to do.
        log = (options.out / "warm.txt").open("w")
        command = [sys.executable, "-m", "benchmarks.picture", "--high", options.high, "--warm"]
        waiting = [subprocess.Popen([*command, *names], stdout=log, stderr=log) for names in jobs(options.quick)]
    vae = train(options.train, device, say, config)
    if options.save is not None:
        save_file({name: tensor.cpu() for name, tensor in vae.state_dict().items()}, options.save)
    say(f"{sum(process.poll() is None for process in waiting)} of {len(waiting)} processes are still compiling")
    for process in waiting:
        try:
            process.wait(timeout=20 if options.quick else 60)
        except subprocess.TimeoutExpired:
            process.terminate()
    torch.backends.cudnn.benchmark = False
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return vae


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="nano", help="a checkpoint, or nano")
    parser.add_argument("--train", type=float, help="seconds of training at full width, in place of a checkpoint")
    parser.add_argument("--widths", type=int, nargs=4, default=(128, 256, 512, 512), help="of what is trained")
    parser.add_argument("--save", type=Path, help="a .safetensors file for what is trained")
    parser.add_argument("--out", type=Path, default=Path("picture"))
    parser.add_argument("--content", type=Path, nargs="*", default=[], help="folders of uint8 .npy clips")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--px", type=int, default=PX, help="edge of the clips")
    parser.add_argument("--few", action="store_true", help="one clip of every kind")
    parser.add_argument("--recipes", action="store_true", help="try other recipes, and other ways to round")
    parser.add_argument("--stages", nargs="*", help="only these: formats, encoder, alone, accuracy, crops")
    parser.add_argument("--limit", type=float, default=DEFAULT_MIN_PSNR_DB, help="the accuracy check's, in dB")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing new after so long")
    parser.add_argument("--high", choices=("fp16", "bf16"), default="fp16", help="the 16 bits beside 8 bits")
    parser.add_argument("--formats", nargs="*", default=FORMATS, help="only these, each alone")
    parser.add_argument("--quick", action="store_true", help="take no times, compile only what is left")
    parser.add_argument("--warm", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.warm:
        warm(*options.warm, device, options.high)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    vae = load(options, device)
    clips = contents(options.px, options.content, few=options.few)
    moved = {kind: [clip.to(device) for clip in group] for kind, group in clips.items()}
    run = Run(vae, device, options.out, moved, _BEGAN + options.seconds, options.high)
    say(f"{sum(len(group) for group in clips.values())} clips are decoded in FP32")
    measure(run, options)


def measure(run: Run, options: argparse.Namespace) -> None:
    """All stages that were asked for, the most wanted first."""
    wanted = set(options.stages or ("formats", "encoder", "alone", "accuracy", "crops"))
    run.stage("reconstruction in FP32", lambda: reconstructions(run))
    if "formats" in wanted:
        run.stage("formats", lambda: formats(run, options.formats, by_reference=not options.few))
    if "crops" in wanted:
        crops(run.out / "crops.png", run.latents, run.exact, {f: run.keeping(f, ()) for f in EIGHT_BIT})
    if "encoder" in wanted:
        run.stage("encoder", lambda: encoders(run))
    run.engines = {format: engine for format, engine in run.engines.items() if format in EIGHT_BIT}
    for format in EIGHT_BIT:
        if "accuracy" in wanted and not run.is_late:
            run.stage(f"{format}, accuracy", partial(checked, run, format, options.limit))
    alone: dict[str, dict[str, dict[str, float]]] = {}
    for format in EIGHT_BIT if "alone" in wanted else ():
        alone[format] = run.stage(f"{format}, one layer alone", partial(sensitivities, run, format))
    if alone:
        costs = run.stage("share of the arithmetic", lambda: decoder_shares(run.vae.config, run.spec))
        sensitivity_plot(run.out / "sensitivity.png", alone, costs)
    for format in EIGHT_BIT:
        if options.recipes and not run.is_late:
            run.stage(f"{format}, recipes", partial(recipes, run, format, alone.get(format)))
        takes_time = run.device.type == "cuda" and not options.quick
        if options.recipes and not run.is_late and format == "fp8" and takes_time:
            run.stage("time in ms", lambda: times(run))
    if options.recipes and not run.is_late:
        latents = [zs[0] for zs in run.latents.values()]
        run.stage("inputs", lambda: RoundedDecoder(run.vae).statistics(latents))
        run.stage("other ways to round, emulated", lambda: schemes(run, alone))
    say("done")


if __name__ == "__main__":
    main()
