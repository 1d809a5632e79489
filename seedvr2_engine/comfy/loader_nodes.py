"""The nodes that choose models, with the ids, inputs and defaults that saved workflows know."""

import logging
from typing import Any

from comfy_api.latest import io

from ..plan.choices import PRECISION_CHOICES
from .devices import check_device, devices, offload_devices
from .dit_model import DiTRequest, find_dit_model
from .model_files import DEFAULT_DIT, DEFAULT_VAE, Kind, check_model, identity_of, model_names
from .progress import NodeProgress
from .vae_model import VAERequest, load_vae_model

log = logging.getLogger(__name__)

CATEGORY = "SEEDVR2"
DitSocket = io.Custom("SEEDVR2_DIT")
VaeSocket = io.Custom("SEEDVR2_VAE")
CompileSocket = io.Custom("TORCH_COMPILE_ARGS")
_NO_COMPILING = "torch.compile settings are accepted and not needed: the engine's kernels are compiled already"


class LoadDiT(io.ComfyNode):
    """(Down)Load DiT Model."""

    NODE_ID = "SeedVR2LoadDiTModel"
    NAME = "SeedVR2 (Down)Load DiT Model"
    IS_DEPRECATED = False

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs in the order in which workflows save them."""
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.NAME,
            category=CATEGORY,
            is_deprecated=cls.IS_DEPRECATED,
            description="Chooses the transformer that restores detail. A public file is downloaded when it is needed.",
            inputs=[
                *_model_inputs("dit", DEFAULT_DIT),
                io.Int.Input("blocks_to_swap", default=0, min=0, max=36, step=1, optional=True, tooltip=_SWAP_TIP),
                io.Boolean.Input(
                    "swap_io_components",
                    default=False,
                    optional=True,
                    tooltip="Accepted for old workflows; without effect.",
                ),
                *_offload_inputs(),
                io.Combo.Input(
                    "attention_mode",
                    options=["sdpa", "flash_attn_2", "flash_attn_3", "sageattn_2", "sageattn_3"],
                    default="sdpa",
                    optional=True,
                    tooltip="Accepted for old workflows; the fastest attention that is installed is used.",
                ),
                CompileSocket.Input("torch_compile_args", optional=True, tooltip=_NO_COMPILING),
            ],
            outputs=[DitSocket.Output(tooltip="For the Video Upscaler.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        model: str,
        device: str,
        offload_device: object = None,
        attention_mode: object = None,
    ) -> bool | str:
        """Accept what another machine saved; what is named here and not looked at is without effect, so any will do."""
        return check_model(model, "dit") or check_device(device) or True

    @classmethod
    def fingerprint_inputs(cls, model: str, **_: Any) -> Any:
        """A file that changed is a changed input."""
        return identity_of(model, "dit")

    @classmethod
    def execute(cls, torch_compile_args: dict[str, Any] | None = None, **inputs: Any) -> io.NodeOutput:
        """Find or download the file and read its header."""
        if torch_compile_args is not None:
            log.info("[DiT Loader] %s", _NO_COMPILING)
        request = DiTRequest(**inputs)
        config = {key: getattr(request, key) for key in DiTRequest.__dataclass_fields__}
        weights = find_dit_model(request, NodeProgress(1).on_bytes)
        return io.NodeOutput(
            {
                **config,
                "torch_compile_args": torch_compile_args,
                "node_id": cls.hidden.unique_id,
                "weights": weights,
            }
        )


class LoadVAE(io.ComfyNode):
    """(Down)Load VAE Model."""

    NODE_ID = "SeedVR2LoadVAEModel"
    NAME = "SeedVR2 (Down)Load VAE Model"
    IS_DEPRECATED = False

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs in the order in which workflows save them; what they do not know comes last."""
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.NAME,
            category=CATEGORY,
            is_deprecated=cls.IS_DEPRECATED,
            description=(
                "Loads the VAE and makes it fast before it hands it on. A public file is downloaded when it is needed."
            ),
            inputs=[
                *_model_inputs("vae", DEFAULT_VAE),
                *_tile_inputs("encode"),
                *_tile_inputs("decode"),
                io.Combo.Input(
                    "tile_debug",
                    options=["false", "encode", "decode"],
                    default="false",
                    optional=True,
                    tooltip="Accepted for old workflows; no borders are drawn.",
                ),
                *_offload_inputs(),
                CompileSocket.Input("torch_compile_args", optional=True, tooltip=_NO_COMPILING),
                io.Boolean.Input(
                    "enable_blackwell_optimization", default=True, optional=True, tooltip=_OPTIMIZATION_TIP
                ),
                io.Combo.Input(
                    "precision", options=list(PRECISION_CHOICES), default="auto", optional=True, tooltip=_PRECISION_TIP
                ),
            ],
            outputs=[VaeSocket.Output(tooltip="For the Video Upscaler, VAE Encode and VAE Decode.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        model: str,
        device: str,
        offload_device: object = None,
        tile_debug: object = None,
    ) -> bool | str:
        """As for the transformer."""
        return check_model(model, "vae") or check_device(device) or True

    @classmethod
    def fingerprint_inputs(cls, model: str, **_: Any) -> Any:
        """A file that changed is a changed input."""
        return identity_of(model, "vae")

    @classmethod
    def execute(
        cls, torch_compile_args: dict[str, Any] | None = None, tile_debug: str = "false", **inputs: Any
    ) -> io.NodeOutput:
        """Load, verify and optimise."""
        if torch_compile_args is not None:
            log.info("[VAE Loader] %s", _NO_COMPILING)
        if tile_debug != "false":
            log.info("[VAE Loader] tile_debug %s: no borders are drawn", tile_debug)
        config = load_vae_model(VAERequest(**inputs), NodeProgress(1).on_bytes)
        return io.NodeOutput(
            {
                **config,
                "tile_debug": tile_debug,
                "torch_compile_args": torch_compile_args,
                "node_id": cls.hidden.unique_id,
            }
        )


class TorchCompileSettings(io.ComfyNode):
    """Torch Compile Settings."""

    NODE_ID = "SeedVR2TorchCompileSettings"
    NAME = "SeedVR2 Torch Compile Settings"
    IS_DEPRECATED = True

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs as saved workflows have them."""
        modes = ["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.NAME,
            category=CATEGORY,
            is_deprecated=cls.IS_DEPRECATED,
            description=f"For old workflows: {_NO_COMPILING}.",
            inputs=[
                io.Combo.Input("backend", options=["inductor", "cudagraphs"], default="inductor"),
                io.Combo.Input("mode", options=modes, default="default"),
                io.Boolean.Input("fullgraph", default=False),
                io.Boolean.Input("dynamic", default=False),
                io.Int.Input("dynamo_cache_size_limit", default=64, min=0, max=1024, step=1),
                io.Int.Input("dynamo_recompile_limit", default=128, min=0, max=1024, step=1),
            ],
            outputs=[CompileSocket.Output()],
        )

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        """Hand the settings on."""
        return io.NodeOutput(inputs)


_SWAP_TIP = "Above 0, all blocks stay in the host's memory and are copied while the block before computes."
_OPTIMIZATION_TIP = (
    "Runs the VAE on this GPU's kernels: a GGUF file in the fastest 8-bit format, other files in 16 bits. "
    "Off: plain PyTorch."
)
_PRECISION_TIP = "auto: 8 bits for GGUF files, 16 for others. A format that this GPU lacks is refused."


def _model_inputs(kind: Kind, default: str) -> list[Any]:
    there = devices()
    return [
        io.Combo.Input("model", options=model_names(kind), default=default, tooltip="A public file, or your own."),
        io.Combo.Input("device", options=there, default=there[0], tooltip="Where the model runs."),
    ]


def _tile_inputs(part: str) -> list[Any]:
    how = "The engine takes tiles only where memory wants them, and chooses the size; the plain model does as asked."
    return [
        io.Boolean.Input(f"{part}_tiled", default=False, optional=True, tooltip=how),
        io.Int.Input(f"{part}_tile_size", default=1024, min=64, step=32, optional=True, tooltip="Pixels."),
        io.Int.Input(
            f"{part}_tile_overlap", default=128, min=0, step=32, optional=True, tooltip="Pixels that tiles share."
        ),
    ]


def _offload_inputs() -> list[Any]:
    return [
        io.Combo.Input(
            "offload_device",
            options=offload_devices(),
            default="none",
            optional=True,
            tooltip="Accepted for old workflows: the model leaves the GPU when ComfyUI needs the memory.",
        ),
        io.Boolean.Input(
            "cache_model",
            default=False,
            optional=True,
            tooltip="Accepted for old workflows: the model stays loaded until ComfyUI needs the memory.",
        ),
    ]
