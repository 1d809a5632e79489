"""Many inputs one after the other: what is done is skipped, and what fails does not keep the others from running."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from json import dumps
from pathlib import Path

import typer

from ...errors import CheckpointError, EngineUnsupportedError, ModelFileError
from ..failures import PASSED_ON, sentence_of
from ..terminal.console import EXIT_BAD_INPUT, EXIT_INCOMPLETE, EXIT_UNTOLD, err, fail
from ..terminal.shown import shown
from .files import Job, Request, Result, run_job

_OF_ALL = (CheckpointError, ModelFileError, EngineUnsupportedError)
"""Errors of the models, which all jobs share."""


def run_jobs(
    jobs: list[Job],
    request: Request,
    *,
    as_json: bool,
    then: Callable[[Job, Result], object] = lambda job, result: None,
) -> None:
    """Run every job and print what came of it, and a summary of several; after each that ends well comes `then`.

    A job of several whose output is there is skipped, unless it is to be overwritten. Exits with the worst code of
    those that failed; the error of an only job, of the models, and an interruption end all.
    """
    facts: list[dict[str, object]] = []
    failed, worst = 0, 0
    is_told = True
    try:
        for job in jobs:
            if not request.begins(job):
                facts.append({"status": "skipped", "input": job.source, "output": str(job.target)})
                continue
            try:
                if job.makes_folder:
                    _make_folder(job.target.parent)
                result = run_job(job, request)
            except (*PASSED_ON, *_OF_ALL, BrokenPipeError):
                raise
            except Exception as error:
                if len(jobs) == 1:
                    raise
                sentence, code = sentence_of(error)
                failed, worst = failed + 1, max(worst, code)
                fail(_named(sentence, job), code)
                facts.append({"status": "failed", "input": job.source, "output": str(job.target), "error": sentence})
                continue
            facts.append(_facts(result, job))
            if not as_json:
                is_told &= _told(result.describe())
            then(job, result)
    except BaseException:
        if len(jobs) > 1:
            err.print(f"{_summary(facts)}, {failed} failed, {len(jobs) - len(facts)} not begun or not finished.")
        raise
    if as_json:
        several = len(jobs) > 1 or jobs[0].makes_folder
        is_told = _told(dumps(facts if several else _without(facts[0], "status", "input"), indent=2))
    if failed:
        sentence = f"{failed} of {len(jobs)} inputs failed; {_summary(facts)}."
        raise typer.Exit(fail(sentence, max(worst, EXIT_BAD_INPUT)))
    if len(jobs) > 1 or facts[0]["status"] == "skipped":
        err.print(f"{_summary(facts)}.")
    if any(fact.get("is_incomplete") for fact in facts):
        raise typer.Exit(fail(_missing_sentence(facts), EXIT_INCOMPLETE))
    if not is_told:
        raise typer.Exit(EXIT_UNTOLD)


def _told(text: str) -> bool:
    """Print a result, and say whether standard output took it; who does not read it still gets the other files."""
    try:
        typer.echo(shown(text, keep="\n"))
        sys.stdout.flush()
    except (OSError, ValueError):
        return False
    return True


def _missing_sentence(facts: list[dict[str, object]]) -> str:
    missing = sum(int(str(fact.get("missing_frames", 0))) for fact in facts)
    frames = f"{missing} frame{'s' if missing > 1 else ''}" if missing else "an unknown number of frames"
    return f"done, but damage in the input has cost {frames}."


def plan_jobs(jobs: list[Job], show: Callable[[Job], None]) -> None:
    """Show what every job would do; of several, one that cannot be opened does not keep the others from being shown."""
    failed, worst = 0, 0
    for job in jobs:
        try:
            show(job)
        except PASSED_ON:
            raise
        except Exception as error:
            if len(jobs) == 1:
                raise
            sentence, code = sentence_of(error)
            failed, worst = failed + 1, max(worst, code)
            fail(_named(sentence, job), code)
    if failed:
        raise typer.Exit(fail(f"{failed} of {len(jobs)} inputs cannot be upscaled.", worst))


def _make_folder(folder: Path) -> None:
    from ...output.unfinished import system_errors

    with system_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _named(sentence: str, job: Job) -> str:
    """The sentence with the input's name, where it does not say which of many it is about."""
    named = any(name in sentence for name in (job.source, Path(job.source).name, str(job.target)))
    return sentence if named else f"{job.source}: {sentence}"


def _facts(result: Result, job: Job) -> dict[str, object]:
    numbers = asdict(result)
    return {
        "status": "done",
        "input": job.source,
        **numbers,
        "output": str(result.output),
        "seconds": round(result.seconds, 3),
    }


def _without(facts: dict[str, object], *keys: str) -> dict[str, object]:
    return {key: value for key, value in facts.items() if key not in keys}


def _summary(facts: list[dict[str, object]]) -> str:
    counts = {status: sum(fact["status"] == status for fact in facts) for status in ("done", "skipped")}
    skipped = " (the output is there; --overwrite does it again)" if counts["skipped"] else ""
    return f"{counts['done']} done, {counts['skipped']} skipped{skipped}"
