"""What a job is made from, so that another run of the same command goes on with it and any other is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from ...errors import InvalidArgumentError, OutputError
from ...output.unfinished import write_whole
from ...pipeline.chunks import ChunkPlan
from ...pipeline.memory import Division
from ...pipeline.options import VaeSpan
from ..job import Job, JobPlan
from ..shot import Shot
from .fingerprint import FileFacts

VERSION = 1
NAME = "job.json"
_WORDS = {"source": "the source", "dit": "the transformer", "vae": "the VAE", "text": "the text embedding"}


@dataclass(frozen=True)
class Manifest:
    """A job, as its folder says it."""

    files: dict[str, FileFacts]
    """The source and the models."""
    settings: dict[str, Any]
    """Everything that was asked for and that results follow from."""
    versions: dict[str, str]
    """Of this package and of PyTorch."""
    gpus: tuple[str, ...]
    """Generations of the devices that have worked on it, such as sm_90, or `cpu with 2 threads`."""
    division: Division
    """How chunks are cut; from the first run on."""
    shots: tuple[Shot, ...]
    units: tuple[tuple[int, int], ...]
    """(first frame, frame after the last one) of each."""

    def to_json(self) -> str:
        """The text of the file."""
        facts = {"version": VERSION, **asdict(self)}
        return json.dumps(facts, indent=1, sort_keys=True) + "\n"

    def write(self, folder: Path) -> None:
        """Write it into a job's folder, at once."""
        write_whole(folder / NAME, self.to_json().encode(), overwrite=True)

    def difference(self, other: Manifest) -> str | None:
        """What another run asks for or finds that is not so here, in words; None where it goes on with the same."""
        for name, facts in self.files.items():
            if not facts.is_same(other.files[name]):
                return f"{_WORDS[name]} {other.files[name].name} has changed since"
        for name in sorted({*self.settings, *other.settings}):
            before, now = self.settings.get(name), other.settings.get(name)
            if before != now:
                return f"{name} was {_shown(before)} and is {_shown(now)} now"
        if self.shots != other.shots:
            return f"its {len(self.shots)} shots are not the {len(other.shots)} of now"
        return None


def manifest_of(job: Job, plan: JobPlan, gpus: tuple[str, ...], versions: dict[str, str]) -> Manifest:
    """What a job would begin with; raises VideoError or ModelFileError where a file cannot be read."""
    from ...errors import ModelFileError

    files = {
        "source": FileFacts.of_source(job.source),
        "dit": FileFacts.of(job.models.dit, ModelFileError),
        "vae": FileFacts.of(job.models.vae, ModelFileError),
        "text": FileFacts.of(job.models.text, ModelFileError),
    }
    return Manifest(
        files,
        _settings(job),
        versions,
        gpus,
        plan.division,
        plan.shots,
        tuple((unit.start, unit.stop) for unit in plan.units),
    )


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a job's folder; None where there is none.

    Raises InvalidArgumentError for one that is damaged or of a later version.
    """
    path = folder / NAME
    try:
        facts = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{path}: it cannot be read ({error.strerror}); check the disk.") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path) from error
    version = facts.get("version") if isinstance(facts, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise InvalidArgumentError(
            f"{path}: expected a job of version {VERSION} or earlier, found {version}, of a later seedvr2; use that "
            "one, or begin anew (--restart)."
        )
    try:
        return _manifest(facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path) from error


def _manifest(facts: Any) -> Manifest:
    chunks, span = facts["division"]["chunks"], facts["division"]["vae_span"]
    if facts["version"] != VERSION or span not in get_args(VaeSpan):
        raise ValueError("unknown")
    return Manifest(
        files={name: FileFacts.from_json(facts["files"][name]) for name in _WORDS},
        settings=dict(facts["settings"]),
        versions={str(name): str(value) for name, value in facts["versions"].items()},
        gpus=tuple(map(str, facts["gpus"])),
        division=Division(ChunkPlan(int(chunks["chunk_frames"]), int(chunks["overlap"])), span),
        shots=tuple(Shot(int(shot["start"]), int(shot["stop"]), shot["border"]) for shot in facts["shots"]),
        units=tuple((int(start), int(stop)) for start, stop in facts["units"]),
    )


def _damaged(path: Path) -> InvalidArgumentError:
    return InvalidArgumentError(f"{path}: expected the description of a job, found a damaged file; use --restart.")


def _settings(job: Job) -> dict[str, Any]:
    """Every setting that a result follows from, by its name; what JSON has no word for as text."""
    settings: dict[str, Any] = {}
    settings |= {_words(name): value for name, value in vars(job.options).items()}
    settings |= {f"output {_words(name)}": value for name, value in vars(job.sink).items()}
    settings |= {f"input {_words(name)}": value for name, value in vars(job.cut).items()}
    settings |= {f"precision of {_words(name)}": value for name, value in vars(job.precisions).items()}
    settings = {name: _plain(value) for name, value in settings.items()}
    # Whether an output is replaced changes nothing in it.
    del settings["output overwrite"]
    settings["unit frames"] = job.job.unit_frames
    settings["output name"] = job.target.name
    return settings


def _words(name: str) -> str:
    return name.replace("_", " ")


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)
