"""The Video Upscaler node, as saved workflows know it."""

from typing import Any

import torch
from comfy_api.latest import io

from ..engine.optimize_dit import DIT_PRECISIONS
from .devices import offload_devices
from .loader_nodes import CATEGORY, DitSocket, VaeSocket
from .upscaling import UpscaleRequest, managed_dit, managed_vae, upscale_image

MAX_PX = 16384


class VideoUpscaler(io.ComfyNode):
    """Video Upscaler."""

    NODE_ID = "SeedVR2VideoUpscaler"
    NAME = "SeedVR2 Video Upscaler"
    IS_DEPRECATED = False

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs in the order of the public pack's schema, which decides how workflows read their values."""
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.NAME,
            category=CATEGORY,
            is_deprecated=cls.IS_DEPRECATED,
            description="Upscales a picture or a clip, with or without alpha, with the SeedVR2 transformer and VAE.",
            inputs=[
                io.Image.Input("image", tooltip="Frames with or without alpha; the result is alike."),
                DitSocket.Input("dit"),
                VaeSocket.Input("vae"),
                io.Int.Input("seed", default=42, min=0, max=2**32 - 1, step=1, tooltip="The noise follows from it."),
                *_size_inputs(),
                *_batch_inputs(),
                io.Combo.Input(
                    "color_correction",
                    options=["lab", "wavelet", "wavelet_adaptive", "hsv", "adain", "none"],
                    default="lab",
                    tooltip="How the source's colours are given back.",
                ),
                _share_input("input_noise_scale", "Noise on the source; calms artefacts at very high resolutions."),
                _share_input("latent_noise_scale", "Noise on the latents; the more, the freer the model draws."),
                io.Combo.Input(
                    "offload_device",
                    options=offload_devices(),
                    default="cpu",
                    optional=True,
                    tooltip="Accepted for old workflows: frames go to the host as soon as they are done.",
                ),
                io.Boolean.Input(
                    "enable_debug", default=False, optional=True, tooltip="Prints how the clip is cut, and its memory."
                ),
                io.Combo.Input(
                    "dit_precision",
                    options=list(DIT_PRECISIONS),
                    default="auto",
                    optional=True,
                    tooltip="Of the transformer's matrix products; auto: the fastest that its weights bear.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The upscaled frames.")],
        )

    @classmethod
    def validate_inputs(cls, offload_device: str = "none") -> bool | str:
        """Accept the devices of the machine that saved the workflow: frames wait on the host in any case."""
        return True

    @classmethod
    def execute(cls, image: torch.Tensor, dit: dict[str, Any], vae: dict[str, Any], **inputs: Any) -> io.NodeOutput:
        """Run the pipeline."""
        request = UpscaleRequest(**inputs)
        return io.NodeOutput(upscale_image(image, managed_dit(dit), managed_vae(vae), request))


def _size_inputs() -> list[Any]:
    return [
        io.Int.Input("resolution", default=1080, min=16, max=MAX_PX, step=2, tooltip="Shortest edge in pixels."),
        io.Int.Input(
            "max_resolution", default=0, min=0, max=MAX_PX, step=2, tooltip="Limit of the longest edge; 0 is no limit."
        ),
    ]


def _batch_inputs() -> list[Any]:
    return [
        io.Int.Input(
            "batch_size",
            default=5,
            min=1,
            max=16384,
            step=4,
            tooltip="Frames that pass the model together: 4n+1.",
        ),
        io.Boolean.Input(
            "uniform_batch_size", default=False, tooltip="Accepted for old workflows: all batches are uniform."
        ),
        io.Int.Input(
            "temporal_overlap", default=0, min=0, max=16, step=1, optional=True, tooltip="Frames that batches share."
        ),
        io.Int.Input(
            "prepend_frames",
            default=0,
            min=0,
            max=32,
            step=1,
            optional=True,
            tooltip="Mirrored frames in front.",
        ),
    ]


def _share_input(name: str, tooltip: str) -> Any:
    return io.Float.Input(name, default=0.0, min=0.0, max=1.0, step=0.001, optional=True, tooltip=tooltip)
