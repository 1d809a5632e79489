"""Draw a learning curve: `python -m training.plot_curve CURVE.csv OUT.png`."""

import argparse
import csv
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

matplotlib.use("Agg")
SECONDS, PIXEL = "seconds", "pixel"


def read_columns(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Every column of the curve as (seconds, value) pairs, empty cells left out."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != SECONDS]
    return {name: [(float(row[SECONDS]), float(row[name])) for row in rows if row[name]] for name in names}


def plot(curves: list[Path], out: Path) -> None:
    """Loss above, PSNR of the averaged weights below; curves of successive runs are joined end to end."""
    figure, (loss_axes, psnr_axes) = plt.subplots(2, 1, sharex=True, figsize=(8, 7))
    colours: dict[str, str] = {}
    start = 0.0
    for path in curves:
        columns = read_columns(path)
        for name, points in columns.items():
            axes = loss_axes if name == PIXEL else psnr_axes if name.startswith("psnr_") else None
            if axes is None:
                continue
            label = name.removeprefix("psnr_")
            times, values = [start + seconds for seconds, _ in points], [value for _, value in points]
            (line,) = axes.plot(
                times, values, color=colours.get(name), label=None if name in colours else label, marker="."
            )
            colours.setdefault(name, line.get_color())
        start += max(seconds for seconds, _ in columns["step"])
        if path != curves[-1]:
            for axes in (loss_axes, psnr_axes):
                axes.axvline(start, color="grey", linestyle=":")
    loss_axes.set(yscale="log", ylabel="pixel term of one batch")
    psnr_axes.set(xlabel="training time in seconds", ylabel="PSNR in dB")
    psnr_axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("curves", type=Path, nargs="+")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    plot(arguments.curves, arguments.out)


if __name__ == "__main__":
    main()
