"""What single arguments of commands mean, and when they cannot be meant together."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from ..errors import InvalidArgumentError, OutputError


def check_count(frames: int, target: Path) -> None:
    """Raise OutputError for a clip that is to become one picture: found out later, the work would be lost."""
    from ..video.reading.pictures.selection import is_picture

    is_one = is_picture(target) and target.suffix.lower() != ".webp"
    if frames > 1 and is_one and "%" not in target.name and not target.is_dir():
        raise OutputError(
            f"{target}: expected one frame for a picture, found {frames}; name a clip, an animated picture (.apng, "
            f".webp), a folder or a pattern such as %05d{target.suffix}, or take one with --frames 1."
        )


def parse_rate(text: str) -> Fraction:
    """Return a frame rate from `25`, `24000/1001` or `23.976`; the last and its like mean the exact NTSC rates.

    Raises InvalidArgumentError if it is none, or not between 1/1000 and 1000 frames per second.
    """
    try:
        rate = Fraction(text.strip())
    except (ValueError, ZeroDivisionError) as error:
        raise InvalidArgumentError(
            f"rate: expected frames per second such as 25 or 24000/1001, got {text!r}."
        ) from error
    if not Fraction(1, 1000) <= rate <= 1000:
        raise InvalidArgumentError(f"rate: expected 0.001 to 1000 frames per second, got {text}.")
    exact = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return exact if "." in text and exact and abs(rate - exact) < Fraction(1, 200) else rate
