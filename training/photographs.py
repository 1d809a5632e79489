"""Fetch photographs of free licences to train on: `python -m training.photographs FOLDER`.

They come with Debian's wallpaper packages (fetched with `apt-get download`, so on Debian or Ubuntu) and with
scikit-image. `data.md` says whose they are and under which licences. Nothing of them is in this repository.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

LONGEST_PX = 2048
JPEG_QUALITY = 92
PLASMA = (
    *("BytheWater", "ColorfulCups", "ColdRipple", "DarkestHour", "EveningGlow", "FallenLeaf"),
    *("Grey", "Kite", "OneStandsOut", "Path", "Volna", "summer_1am"),
)
"""Those of Plasma's wallpapers that are photographs."""
PACKAGES: dict[str, tuple[str, ...]] = {
    "lomiri-wallpapers-16.04": ("usr/share/backgrounds/*_by_*.jpg",),
    "lomiri-wallpapers-20.04": ("usr/share/backgrounds/Kleiber_by_*.jpg",),
    "mate-backgrounds": ("usr/share/backgrounds/mate/nature/*.jpg",),
    "plasma-workspace-wallpapers": tuple(f"usr/share/wallpapers/{name}/contents/images/*.jpg" for name in PLASMA),
}
"""Debian packages and, as globs, the photographs in them."""
SCIKIT_IMAGE = (
    "brick.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "rocket.jpg",
)


def fetch_packages(folder: Path) -> list[Path]:
    """Download and unpack the Debian packages into `folder`; returns the photographs. Raises CalledProcessError."""
    found: list[Path] = []
    for package, patterns in PACKAGES.items():
        place = folder / package
        place.mkdir(parents=True)
        subprocess.run(["apt-get", "download", "-qq", package], cwd=place, check=True)
        archive = next(place.glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=place, check=True)
        matching = sorted(path for pattern in patterns for path in place.glob(pattern))
        # Plasma's wallpapers lie there in many sizes each, named by them; the largest file is the largest picture.
        sizes = [path for path in matching if path.parent.name == "images"]
        largest = {path.parent: path for path in sorted(sizes, key=lambda path: path.stat().st_size)}
        found += [path for path in matching if path not in sizes] + list(largest.values())
    return found


def scikit_image_pictures() -> list[Path]:
    """The photographs that the installed scikit-image holds."""
    import skimage

    data = Path(skimage.__file__).parent / "data"
    return [data / name for name in SCIKIT_IMAGE]


def save_smaller(source: Path, target: Path) -> None:
    """Write a photograph as JPEG with its longest edge at most LONGEST_PX."""
    with Image.open(source) as picture:
        picture.draft("RGB", (LONGEST_PX, LONGEST_PX))
        small = picture.convert("RGB")
        small.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
        small.save(target, quality=JPEG_QUALITY)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the JPEG files go")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        for index, source in enumerate([*fetch_packages(Path(place)), *scikit_image_pictures()]):
            save_smaller(source, folder / f"{index:03d}.jpg")
            print(folder / f"{index:03d}.jpg", source.name)


if __name__ == "__main__":
    main()
