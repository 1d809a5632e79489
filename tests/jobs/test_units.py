"""A job is divided by its plan alone, into units that together give every frame once."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedvr2_engine.errors import InvalidArgumentError, JobError
from seedvr2_engine.jobs.running.queue import UnitQueue
from seedvr2_engine.jobs.shot import Shot, whole
from seedvr2_engine.jobs.units.unit import check_shots, cut_units, unit_length
from seedvr2_engine.pipeline.chunks import ChunkPlan
from seedvr2_engine.pipeline.memory import Division
from seedvr2_engine.pipeline.options import UpscaleOptions


def units_of(shots, length=30, span="clip", chunks=ChunkPlan(21, 5), **options):  # noqa: B008
    return cut_units(shots, Division(chunks, span), UpscaleOptions(**options), length)


@given(
    st.integers(1, 400),
    st.integers(1, 90),
    st.sampled_from(["clip", "chunk"]),
    st.integers(0, 64),
    st.sampled_from([(1, 0), (5, 1), (9, 5), (45, 5)]),
    st.integers(0, 3),
)
def test_units_give_every_frame_once_and_read_no_earlier_shot(frames, length, span, before, chunks, cuts):
    borders = sorted({0, frames, *(frames * (cut + 1) // 5 for cut in range(cuts))})
    shots = tuple(Shot(a, b) for a, b in pairwise(borders))
    units = units_of(shots, length, span, ChunkPlan(*chunks), prepend_frames=before)
    assert [unit.start for unit in units] == [0, *(unit.stop for unit in units[:-1])]
    assert units[-1].stop == frames
    for unit in units:
        assert unit.frames > 0
        assert unit.shot.start <= unit.reads_from <= unit.start
        assert unit.entry.is_start == (unit.start == unit.shot.start)
        if unit.stop < unit.shot.stop:
            assert unit.frames >= length


def test_a_short_clip_is_one_unit_and_a_long_one_many():
    assert unit_length(270, (720, 1280)) >= 270
    assert len(units_of(whole(270), unit_length(270, (720, 1280)))) == 1
    assert 25 <= len(units_of(whole(1000), unit_length(1000, (720, 1280)))) <= 63
    # An hour is not divided further than a minute's work.
    assert unit_length(86400, (720, 1280)) == 271


@pytest.mark.parametrize("shots", [(Shot(0, 9),), (Shot(1, 10),), (Shot(0, 5), Shot(6, 10)), (Shot(0, 12),)])
def test_shots_of_another_clip_are_refused(shots):
    with pytest.raises(InvalidArgumentError, match="shots: expected"):
        check_shots(shots, 10)


def drained(units, devices, warm_up=0.6):
    """Simulate devices of one speed; (time, how often one began elsewhere)."""
    queue, clock = UnitQueue(units), [0.0] * devices
    last, ends, begun = [None] * devices, {}, 0
    while not queue.is_done:
        for device in sorted(range(devices), key=lambda one: (not queue.goes_on(last[one]), clock[one])):
            if device not in ends:
                unit = queue.take(last[device], devices - len(ends))
                if unit is not None:
                    goes_on = last[device] is not None and unit.follows(last[device])
                    begun += not goes_on
                    clock[device] += unit.frames + (0 if goes_on else warm_up * unit.warm_up_frames)
                    ends[device] = unit
        device = min(ends, key=clock.__getitem__)
        last[device] = ends.pop(device)
        queue.finish(last[device].number)
        for other in range(devices):
            if other not in ends:
                clock[other] = max(clock[other], clock[device])
    return max(clock), begun


def test_one_device_goes_on_and_several_begin_elsewhere_once():
    units = units_of(whole(2400), unit_length(2400, (720, 1280)), chunks=ChunkPlan(45, 5))
    time, begun = drained(units, 1)
    assert (time, begun) == (2400, 1)
    time, begun = drained(units, 2)
    assert begun <= 3
    assert 2400 / time > 1.75
    assert 2400 / drained(units, 3)[0] > 2.1


def test_whole_shots_come_before_parts_the_longest_first():
    shots = (Shot(0, 50), Shot(50, 250), Shot(250, 330))
    queue = UnitQueue(units_of(shots, 1000))
    assert [queue.take(None, 3).shot for _ in range(3)] == [shots[1], shots[2], shots[0]]


def test_a_unit_is_given_out_three_times():
    queue = UnitQueue(units_of(whole(200)))
    for attempt in (1, 2):
        assert queue.give_back(queue.take(None).number, "it broke.") == attempt
    unit = queue.take(None)
    assert unit.number == 0
    with pytest.raises(JobError, match="3 attempts failed, the last one with: it broke; what is finished is kept"):
        queue.give_back(unit.number, "it broke.")
