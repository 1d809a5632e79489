"""What a user asks for is checked once, and what follows from it is said."""

import math
from dataclasses import FrozenInstanceError

import pytest

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.pipeline.chunks import ChunkPlan
from seedvr2_engine.pipeline.options import UpscaleOptions, default_overlap


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"resolution": 0}, "resolution: expected a whole number from 16 to 16384, got 0"),
        ({"resolution": 10**9}, "got 1000000000"),
        ({"resolution": 720.5}, "got 720.5"),
        ({"resolution": "720"}, "got '720'"),
        ({"resolution": True}, "got True"),
        ({"resolution": 720, "scale": 2.0}, "size: expected a resolution or a scale, got resolution 720 and scale 2.0"),
        ({"scale": 0}, "scale: expected a factor above 0 and up to 16, got 0"),
        ({"scale": -2}, "got -2"),
        ({"scale": math.inf}, "got inf"),
        ({"scale": math.nan}, "got nan"),
        ({"scale": "2"}, "got '2'"),
        ({"max_resolution": 0}, "maximum resolution: expected a whole number from 16 to 16384, got 0"),
        ({"chunk_frames": 0}, "chunk frames: expected a whole number from 1"),
        ({"overlap": -1}, "overlap: expected a whole number from 0"),
        ({"chunk_frames": 5, "overlap": 5}, "overlap: expected 0 to 4 frames"),
        ({"chunk_frames": 4, "overlap": 6}, "overlap: expected 0 to 4 frames"),
        ({"prepend_frames": 65}, "prepended frames: expected a whole number from 0 to 64, got 65"),
        (
            {"color": "LAB"},
            "colour method: expected one of lab, wavelet, wavelet_adaptive, hsv, adain, none, got 'LAB'",
        ),
        ({"seed": -1}, "seed: expected a whole number from 0 to 18446744073709551615, got -1"),
        ({"seed": 1 << 64}, "seed"),
        ({"input_noise": 1.01}, "input noise: expected a number from 0 to 1, got 1.01"),
        ({"input_noise": math.nan}, "got nan"),
        ({"latent_noise": -0.1}, "latent noise: expected a number from 0 to 1, got -0.1"),
        ({"latent_noise": "much"}, "got 'much'"),
        ({"noise": "random"}, "noise: expected one of position, reference, got 'random'"),
    ],
)
def test_wrong_values_are_refused_in_one_sentence(wrong, said):
    with pytest.raises(InvalidArgumentError, match=said.replace("(", r"\(")) as caught:
        UpscaleOptions(**wrong)
    assert str(caught.value).count(". ") == 0


def test_options_do_not_change():
    with pytest.raises(FrozenInstanceError):
        UpscaleOptions().seed = 1


def test_the_default_size_is_1080():
    assert UpscaleOptions().resize((360, 640)).resized == (1080, 1920)
    assert UpscaleOptions(max_resolution=1280).resize((360, 640)).resized == (720, 1280)
    assert UpscaleOptions(resolution=720).resize((640, 360)).resized == (1280, 720)
    assert UpscaleOptions(scale=2).resize((360, 640)).resized == (720, 1280)


@pytest.mark.parametrize(("asked", "taken"), [(1, 1), (2, 5), (4, 5), (5, 5), (6, 9), (16, 17), (45, 45)])
def test_chunks_are_rounded_up_and_that_is_said(asked, taken):
    options = UpscaleOptions(chunk_frames=asked)
    assert options.chunks(fitting_frames=99).chunk_frames == taken
    if asked == taken:
        assert options.remarks == ()
    else:
        assert options.remarks == (f"Chunks have 4n+1 frames: {taken} are taken instead of {asked}.",)


def test_chunks_follow_from_what_fits_when_nothing_is_asked():
    assert UpscaleOptions().chunks(fitting_frames=45) == ChunkPlan(45, 5)
    assert UpscaleOptions(overlap=0).chunks(fitting_frames=45) == ChunkPlan(45, 0)
    assert UpscaleOptions().remarks == ()
    with pytest.raises(InvalidArgumentError, match="lower the overlap or enlarge the chunks"):
        UpscaleOptions(overlap=9).chunks(fitting_frames=9)


@pytest.mark.parametrize("frames", range(1, 200, 4))
def test_the_default_overlap_keeps_chunks_on_whole_latents(frames):
    overlap = default_overlap(frames)
    assert 0 <= overlap < frames
    assert overlap * 5 <= frames
    assert (frames - overlap) % 4 == 0 or frames == 1


@pytest.mark.parametrize(("frames", "overlap"), [(1, 0), (5, 1), (21, 1), (25, 5), (45, 5)])
def test_chunks_of_25_frames_and_more_share_two_latents(frames, overlap):
    assert default_overlap(frames) == overlap
