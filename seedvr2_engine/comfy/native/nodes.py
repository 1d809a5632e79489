"""The nodes that put the engine behind ComfyUI's own SeedVR2."""

from typing import Any

from comfy_api.latest import io

from ...errors import InvalidArgumentError
from ...plan.choices import PRECISION_CHOICES
from ..loader_nodes import CATEGORY
from ..model_files import DEFAULT_NATIVE_DIT, check_model, identity_of, model_names
from ..progress import NodeProgress
from .transformer import accelerate_model
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


class EngineModel(io.ComfyNode):
    """SeedVR2 Engine Model."""

    NODE_ID = "SeedVR2EngineModel"
    NAME = "SeedVR2 Engine Model"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A model, and the file with the weights that take its place."""
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.NAME,
            category=CATEGORY,
            description=(
                "Samples ComfyUI's own SeedVR2 with this pack's transformer: put it between Load Diffusion Model and "
                "KSampler."
            ),
            inputs=[
                io.Model.Input("model", tooltip="Of Load Diffusion Model, with a SeedVR2 transformer."),
                io.Combo.Input(
                    "file",
                    options=model_names("dit"),
                    default=DEFAULT_NATIVE_DIT,
                    tooltip="The weights that are used, of any format; computed in 16 bits.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="For SeedVR2 Conditioning and KSampler.")],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        """A name that cannot be meant is refused before anything runs."""
        return check_model(file, "dit") or True

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: Any) -> Any:
        """A file that changed is a changed input."""
        return identity_of(file, "dit")

    @classmethod
    def execute(cls, model: Any, file: str) -> io.NodeOutput:
        """Hand on a MODEL; the weights are loaded when it is first sampled."""
        return io.NodeOutput(accelerate_model(model, file, NodeProgress(1).on_bytes))
