"""What a clip says of its own brightness: static HDR10 metadata, and dynamic metadata by name."""

from __future__ import annotations

from dataclasses import dataclass

Chromaticity = tuple[float, float]
"""CIE 1931 (x, y)."""


@dataclass(frozen=True)
class MasteringDisplay:
    """The display that the picture was decided on. Source: SMPTE ST 2086."""

    primaries: tuple[Chromaticity, Chromaticity, Chromaticity] | None = None
    """Of red, green and blue; None where the file gives none, and then no white point either."""
    white: Chromaticity | None = None
    min_nits: float | None = None
    """Luminance of its black, in cd/m2; None where the file gives none, and then no largest either."""
    max_nits: float | None = None
    """Luminance of its white, in cd/m2."""


@dataclass(frozen=True)
class ContentLight:
    """How bright the content itself becomes; 0 is unknown. Source: CTA-861.3."""

    max_cll_nits: int
    """MaxCLL: the largest of R, G and B of any pixel, in cd/m2."""
    max_fall_nits: int
    """MaxFALL: the largest average over a frame of each pixel's largest component, in cd/m2."""


@dataclass(frozen=True)
class HdrMetadata:
    """All of it; empty for most files."""

    mastering: MasteringDisplay | None = None
    light: ContentLight | None = None
    dynamic: tuple[str, ...] = ()
    """Names of metadata that change from scene to scene, which cannot be carried over to other pixels."""

    @property
    def has_static(self) -> bool:
        """Whether there is something that an output can carry on."""
        return self.mastering is not None or self.light is not None

    def describe(self) -> str:
        """For people: `mastered at 0.005 to 1000 nits, MaxCLL 1000, MaxFALL 400`; empty without metadata."""
        parts = []
        if self.mastering is not None and self.mastering.max_nits is not None:
            parts.append(f"mastered at {self.mastering.min_nits:g} to {self.mastering.max_nits:g} nits")
        if self.light is not None:
            parts.append(f"MaxCLL {self.light.max_cll_nits}, MaxFALL {self.light.max_fall_nits}")
        return ", ".join(parts + list(self.dynamic))
