"""The nodes that put the engine behind ComfyUI's own SeedVR2."""

from typing import Any

from comfy_api.latest import io

from ...errors import InvalidArgumentError
from ...plan.choices import PRECISION_CHOICES
from ..loader_nodes import CATEGORY
from ..model_files import check_model, identity_of, model_names
from ..progress import NodeProgress
from .vae_object import Choices, accelerate, from_file

CONNECTED = "connected"
"""The choice of weights that are connected, not in a file."""


class EngineVAE(io.ComfyNode):
    """SeedVR2 Engine VAE."""

    NODE_ID = "SeedVR2EngineVAE"
    NAME = "SeedVR2 Engine VAE"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A VAE or a file, and how it is computed."""
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.NAME,
            category=CATEGORY,
            description=(
                "Computes ComfyUI's own SeedVR2 VAE on this pack's engine: put it between Load VAE and the nodes that "
                "encode and decode."
            ),
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[CONNECTED, *model_names("vae")],
                    default=CONNECTED,
                    tooltip="connected: the weights of the VAE that is connected. A file needs no VAE.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISION_CHOICES),
                    default="auto",
                    tooltip="auto: 8 bits for GGUF files, 16 for others. A format that this GPU lacks is refused.",
                ),
                io.Boolean.Input(
                    "whole_frames",
                    default=False,
                    tooltip="VAE Encode (Tiled) and VAE Decode (Tiled) compute whole frames wherever memory suffices: "
                    "exact, and less work.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Of Load VAE, with a SeedVR2 VAE."),
            ],
            outputs=[io.Vae.Output(display_name="VAE", tooltip="For every node that takes the native SeedVR2 VAE.")],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool | str:
        """A name that cannot be meant is refused before anything runs."""
        return model == CONNECTED or check_model(model, "vae") or True

    @classmethod
    def fingerprint_inputs(cls, model: str, **_: Any) -> Any:
        """A file that changed is a changed input."""
        return model if model == CONNECTED else identity_of(model, "vae")

    @classmethod
    def execute(
        cls, model: str = CONNECTED, precision: str = "auto", whole_frames: bool = False, vae: Any = None
    ) -> io.NodeOutput:
        """Hand on a VAE object; the model is made when it is first used."""
        choices = Choices(precision, whole_frames)
        if model != CONNECTED:
            return io.NodeOutput(from_file(model, choices, NodeProgress(1).on_bytes))
        if vae is None:
            raise InvalidArgumentError(
                "vae: expected a connected VAE, found none; connect Load VAE, or choose a file as `model`."
            )
        return io.NodeOutput(accelerate(vae, choices))
