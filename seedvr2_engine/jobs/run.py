"""Run a job: the one entry for whoever wants a clip upscaled in units."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import torch

from ..device import resolve_device
from ..errors import InvalidArgumentError
from ..pipeline.setup import Setup
from ..version import __version__
from ..video import FrameSink, SourceInfo, open_sink
from ..video.writing.writer import check_place
from .folder.job_folder import JobFolder, folder_for, was_joined
from .folder.manifest import manifest_of
from .job import Job, can_be_divided, plan_units
from .running.events import Event, Finished, Planned, Remarked, UnitFinished
from .running.executors import Executor, OneDevice
from .running.joining import Joining
from .running.processes import Processes
from .running.queue import UnitQueue
from .running.unit_runner import Order


def devices_of(choice: str) -> tuple[str, ...]:
    """The devices that `all`, or a list such as `cuda:0,cuda:1` or `cpu,cpu`, means.

    Raises InvalidArgumentError for one that is not there, or a GPU that is listed twice.
    """
    if choice == "all":
        count = torch.cuda.device_count()
        if count == 0:
            raise InvalidArgumentError("devices: expected CUDA GPUs for `all`, found none; name `cpu`, or `cpu,cpu`.")
        return tuple(f"cuda:{index}" for index in range(count))
    names = [name.strip() for name in choice.split(",")]
    places = [resolve_device(name) for name in names]
    named = [str(torch.device("cuda", place.index or 0)) if place.type == "cuda" else str(place) for place in places]
    twice = [name for name in named if name.startswith("cuda") and named.count(name) > 1]
    if twice:
        raise InvalidArgumentError(f"devices: expected every GPU once, got {twice[0]} twice; leave one out.")
    return tuple(named)


def run_job(
    job: Job,
    *,
    devices: Sequence[str] = ("auto",),
    on_event: Callable[[Event], None] = lambda _: None,
    is_stopped: Callable[[], bool] = lambda: False,
    setup: Setup | None = None,
    executor: Executor | None = None,
) -> Finished:
    """Upscale a clip in units, and go on with what an earlier run of the same job has finished.

    devices: as `devices_of` gives them; one works in this process, several in a process each. on_event: gets what
    happens, in this thread and in that of the encoder. is_stopped: whether to end, with KeyboardInterrupt; what is
    finished stays. setup: of the first device, where it is planned already. executor: computes the units in place of
    `devices`. The output's bytes follow from the job alone, not from devices or interruptions. Raises JobError where a
    unit fails too often, InvalidArgumentError where the folder is of another job or the input cannot be divided,
    OutputError where another process has the job or the disk is full.
    """
    began = time.perf_counter()
    setup = setup or job.precisions.setup(job.models, resolve_device(devices[0]))
    if executor is None:
        here = str(setup.formats.device)
        executor = OneDevice(here, setup.load) if len(devices) == 1 else Processes(devices)
    with job.cut.open(job.source) as clip:
        info = clip.info
    if not can_be_divided(job.target, info, job.cut):
        raise InvalidArgumentError(
            f"{job.source}: expected a clip whose frames are all there, to divide it into units, found a single or "
            "animated picture, or --keep-damaged; leave --devices and --shots out."
        )
    plan = plan_units(info, setup, job.options, job.job)
    is_there = was_joined(job.target)
    if not is_there:
        check_place(job.target, info, job.sink)
    with JobFolder(folder_for(job.target)) as folder:
        manifest = folder.go_on(
            manifest_of(job, plan, _gpus(devices), {"seedvr2": __version__, "PyTorch": torch.__version__}),
            restart=job.job.restart,
            tell=lambda sentence: on_event(Remarked(sentence)),
        )
        if manifest.division != plan.division:
            # Decided by the first run's device, so that a smaller or larger one goes on with the same chunks.
            plan = plan_units(info, setup, job.options, job.job, manifest.division)
        if is_there and len(folder.finished) == len(plan.units):
            on_event(Remarked(f"{job.target}: an earlier run finished it, and was killed before it could say so."))
            folder.remove()
            return Finished(job.target, info.selected_frames, time.perf_counter() - began, (), plan.division)
        folder.remove_joining(job.target)
        done = sum(unit.frames for unit in plan.units if unit.number in folder.finished)
        on_event(
            Planned(len(plan.shots), len(plan.units), info.selected_frames, len(folder.finished), done, folder.path)
        )
        with _sink(job, info, folder) as sink:
            for sentence in sink.warnings:
                on_event(Remarked(sentence))
            folder.note_joining(sink.unfinished)
            assert sink.keeping is not None
            options = plan.resolved(job.options)
            order = Order(
                job.source,
                job.cut,
                options,
                job.models,
                job.precisions,
                sink.keeping,
                folder.path,
                plan.units,
                torch.get_num_threads(),
            )
            said = len(sink.warnings)
            _compute(order, executor, sink, folder, on_event, is_stopped)
            sink.finish()
        if not job.job.keeps_folder:
            folder.remove()
    seconds = time.perf_counter() - began
    result = Finished(job.target, sink.frames_written, seconds, tuple(sink.warnings[said:]), plan.division)
    on_event(result)
    return result


def _compute(
    order: Order,
    executor: Executor,
    sink: FrameSink,
    folder: JobFolder,
    on_event: Callable[[Event], None],
    is_stopped: Callable[[], bool],
) -> None:
    """Compute what is not finished, and write all of it into the sink."""
    joining = Joining(sink, order.coding, on_event)
    try:
        for number, path in folder.finished.items():
            joining.add(number, path)
        queue = UnitQueue(order.units, folder.finished)
        if queue.has_free:
            with closing(executor.run(order, queue, is_stopped)) as events:
                for event in events:
                    joining.check()
                    if isinstance(event, UnitFinished):
                        folder.finish(event.stored)
                        joining.add(event.unit, event.stored.path)
                    on_event(event)
        joining.wait(is_stopped)
    finally:
        joining.stop()


@contextmanager
def _sink(job: Job, info: SourceInfo, folder: JobFolder) -> Iterator[FrameSink]:
    """The output; what is in it is of no use where it is not finished, because all of it is in the units."""
    height, width = job.options.resize((info.height, info.width)).output
    sink = open_sink(job.target, width=width, height=height, source=info, options=job.sink)
    try:
        yield sink
    except BaseException:
        sink.abort(keep_partial=False)
        folder.forget_joining()
        raise


def _gpus(devices: Sequence[str]) -> tuple[str, ...]:
    """What last bits follow from: the generations of GPUs, or the number of threads on a CPU; each once."""
    found = []
    for place in map(resolve_device, devices):
        if place.type == "cuda":
            found.append(f"sm_{''.join(map(str, torch.cuda.get_device_capability(place)))}")
        else:
            count = torch.get_num_threads()
            found.append(f"{place.type} with {count} thread{'s' if count > 1 else ''}")
    return tuple(dict.fromkeys(found))
