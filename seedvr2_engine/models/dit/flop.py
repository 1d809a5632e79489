"""The floating-point operations of a transformer's velocity, counted from shapes."""

from typing import NamedTuple

from .config import DiTConfig
from .geometry import Geometry


class VelocityFlop(NamedTuple):
    """Multiplications and additions, two for each pair."""

    products: float
    """Of matrix products with weights, video tokens alone: what is quoted as FLOP a token."""
    text: float
    """The same, of the text tokens."""
    attention: float
    """Of scores and weighted sums."""

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self)


def velocity_flop(config: DiTConfig, geometry: Geometry) -> VelocityFlop:
    """Count what one velocity takes; the text's dead part in the last layer is left out, as it is not computed."""
    video = len(geometry.restore)
    text = geometry.shape[0] * geometry.text_tokens
    inner, mlp = config.attention_width, (3 if config.family == "3b" else 2) * config.mlp_width
    layer = 2.0 * config.width * (4 * inner + mlp)
    ends = 2.0 * config.width * config.patch_positions * (config.in_channels + config.out_channels)
    attention = 0.0
    for index in range(config.layers):
        for group in geometry.layouts[index % 2].groups:
            keys = group.tokens + geometry.text_tokens
            queries = group.tokens if index == config.layers - 1 else keys
            attention += 4.0 * inner * group.windows * queries * keys
    return VelocityFlop(
        video * (config.layers * layer + ends),
        text * ((config.layers - 1) * layer + 4.0 * config.width * inner),
        attention,
    )
