"""How both accuracy checks turn a limit in dB into an error that may be spent, and say what they kept."""

from collections.abc import Iterable

HEADROOM = 0.8
"""Share of the allowed error that what is left in 8 or 4 bits may use by prediction."""


def allowed_error(min_psnr_db: float) -> float:
    """The mean squared error, of pictures in [0, 1], that a PSNR of `min_psnr_db` allows."""
    return 10 ** (-min_psnr_db / 10)


def describe_kept(before_db: float, names: Iterable[str]) -> str:
    """The end of the line for people: what is kept in 16 bits, and the PSNR before; empty where nothing is."""
    listed = ", ".join(names)
    return f"; {before_db:.1f} dB before these were kept in 16 bits: {listed}" if listed else ""
