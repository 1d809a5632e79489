"""A long clip, or one for several devices, in units: `jobs.run.run_job`, with a bar and sentences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ...output.signals import held_signals
from ..terminal.console import EXIT_INTERRUPTED, err, fail, frame_progress, warn
from ..terminal.job_bar import JobBar
from .asked import Job, Request, Result

if TYPE_CHECKING:
    from ... import jobs
    from ...jobs.job import JobOptions
    from ...jobs.running.events import Event
    from ...jobs.shot import Shot
    from ...video import SourceInfo


def work_for(job: Job, request: Request, info: SourceInfo) -> JobOptions | None:
    """How a clip is done in units, with its shots; None where it is one unit, which needs no folder and one device.

    Raises InvalidArgumentError for a list of shots that is not of this clip.
    """
    from ...jobs.job import can_be_divided, needs_folder, plan_units

    if request.work is None or not can_be_divided(job.target, info, request.cut):
        return None
    work = request.work
    if request.shots != "off":
        work = replace(work, shots=_shots(job, request))
    return work if needs_folder(plan_units(info, request.setup, request.options, work).units) else None


def _shots(job: Job, request: Request) -> tuple[Shot, ...]:
    """The shots of a list, or those that are found in a pass over the clip."""
    from ...jobs.shots.choice import shots_of

    with request.cut.open(job.source) as clip, frame_progress() as bar:
        task = bar.add_task("shots", total=len(clip), visible=request.shots == "auto")
        found = shots_of(clip, request.shots, lambda count: bar.update(task, completed=count))
    err.print(f"{len(found)} shot{'s' if len(found) > 1 else ''}", markup=False)
    return found


def run_in_units(job: Job, request: Request, info: SourceInfo, work: JobOptions) -> Result:
    """Upscale one input into one output, in units; what is finished stays in the job's folder."""
    from ...jobs.run import run_job
    from ...jobs.running.executors import OneDevice

    devices = request.devices or (str(request.setup.formats.device),)
    with held_signals() as signals, JobBar(Path(job.source).name, devices) as bar:
        told = _Told(bar)
        executor = None
        if len(devices) == 1:
            executor = OneDevice(devices[0], lambda options: request.upscaler.with_options(options))
        try:
            finished = run_job(
                _asked(job, request, work),
                devices=devices,
                on_event=told.take,
                is_stopped=lambda: signals.is_pending,
                setup=request.setup,
                executor=executor,
            )
        except KeyboardInterrupt:
            bar.stop()
            signals.take()
            raise typer.Exit(fail(f"interrupted; {told.state()}.", EXIT_INTERRUPTED)) from None
        except BaseException:
            bar.stop()
            if told.has_finished:
                err.print(f"{told.state()}.", markup=False)
            raise
        bar.stop()
        for sentence in finished.warnings:
            warn(sentence)
        if signals.take():
            raise typer.Exit(fail(f"interrupted; {job.target} is finished.", EXIT_INTERRUPTED))
    height, width = request.options.resize((info.height, info.width)).output
    chunks = finished.division.chunks
    return Result(
        output=job.target,
        frames=finished.frames,
        source_size=(info.width, info.height),
        size=(width, height),
        chunk_frames=chunks.chunk_frames,
        overlap=chunks.overlap,
        seconds=finished.seconds,
    )


def _asked(job: Job, request: Request, work: JobOptions) -> jobs.job.Job:
    from ...jobs.job import Job as UnitsJob
    from ...jobs.job import Precisions

    return UnitsJob(
        job.source,
        job.target,
        request.setup.files,
        request.options,
        request.sink,
        request.cut,
        request.precisions or Precisions(),
        work,
    )


class _Told:
    """Shows a job's events."""

    def __init__(self, bar: JobBar) -> None:
        self._bar = bar
        self._units = self._finished = 0
        self.folder: Path | None = None

    @property
    def has_finished(self) -> bool:
        """Whether there is a unit to go on with."""
        return self._finished > 0

    def state(self) -> str:
        """What is there when it ends early, and what to do."""
        if self.folder is None or not self._finished:
            return "nothing was finished"
        return (
            f"{self._finished} of {self._units} units are finished, in {self.folder}; the same command goes on with "
            "them"
        )

    def take(self, event: Event) -> None:
        """Show an event."""
        from ...jobs.running import events

        if isinstance(event, events.Remarked):
            warn(event.sentence)
        elif isinstance(event, events.Planned):
            self.folder, self._units, self._finished = event.folder, event.units, event.finished_units
            self._bar.begin(event.frames, event.finished_frames)
            if event.finished_units:
                err.print(
                    f"{event.folder}: going on; {event.finished_units} of {event.units} units are finished.",
                    markup=False,
                )
        elif isinstance(event, events.UnitStarted):
            self._bar.started(event.device, event.unit, self._units)
        elif isinstance(event, events.UnitAdvanced):
            self._bar.advanced(event.device, event.stage, event.done)
        elif isinstance(event, events.UnitFinished):
            self._finished += 1
            self._bar.finished(event.device, event.stored.frames)
        elif isinstance(event, events.UnitFailed):
            self._bar.failed(event.device)
            if not event.is_final:
                what = "it is started again" if event.unit is None else f"unit {event.unit} is given out again"
                warn(f"{event.reason.rstrip('.')}; {what}.")
        elif isinstance(event, events.Joined):
            self._bar.joined(event.frames)
