"""Clips of any size and length are upscaled, chunk by chunk, without visible borders and in bounded memory."""

import weakref

import pytest
import torch

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.models.dit.model import NaDiT
from seedvr2_engine.pipeline.options import UpscaleOptions
from seedvr2_engine.pipeline.upscaler import Progress, Upscaler
from seedvr2_engine.video import CodedFrame, ColorRange, ColorTags, Matrix
from seedvr2_engine.video.planes import coding_for

from ..models.dit.dit_cases import build_tiny
from .golden_pipeline import EMPTY_TEXT, StubDiT, StubVAE
from .picture_cases import scene


def clip(count, height=20, width=28, channels=3):
    frames = scene(count, height, width)
    if channels == 4:
        frames = torch.cat([frames, (frames[:, :1] > 0.5).float()], dim=1)
    return list(frames)


def stub(noise_share=0.0, **options) -> Upscaler:
    options = {"scale": 2, "chunk_frames": 9, "overlap": 5, "vae_span": "clip", "color": "wavelet", **options}
    return Upscaler(StubDiT(noise_share), StubVAE(), UpscaleOptions(**options), text=EMPTY_TEXT)


@pytest.fixture(scope="module")
def tiny_dit() -> NaDiT:
    return build_tiny("3b")


@pytest.mark.parametrize("span", ["clip", "chunk", None])
def test_both_networks_together(tiny_vae, tiny_dit, span):
    options = UpscaleOptions(resolution=33, chunk_frames=5, overlap=1, prepend_frames=2, input_noise=0.1, vae_span=span)
    upscaler = Upscaler(tiny_dit, tiny_vae, options, text=torch.randn(7, 64, generator=torch.manual_seed(0)))
    runs = [torch.stack(list(upscaler.upscale(clip(7)))) for _ in range(2)]
    assert runs[0].shape == (7, 3, 32, 46)
    assert runs[0].dtype == torch.float32
    assert runs[0].min() >= 0
    assert runs[0].max() <= 1
    assert runs[0].std() > 0.01
    assert torch.equal(*runs)


@pytest.mark.parametrize(
    ("color", "count"),
    [("lab", 10), ("wavelet_adaptive", 10), ("hsv", 10), ("wavelet", 10), *(("adain", n) for n in (1, 4, 9, 10, 23))],
)
@pytest.mark.parametrize("span", ["clip", "chunk"])
def test_count_and_size_are_kept(color, count, span):
    out = list(stub(color=color, vae_span=span).upscale(clip(count)))
    assert [frame.shape for frame in out] == [(3, 40, 56)] * count


@pytest.mark.parametrize("transfer", [2, 16])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuva444p10le"])
@pytest.mark.parametrize("span", ["clip", "chunk"])
def test_code_values_in_and_out_are_the_same_as_frames(span, pix_fmt, transfer):
    """SDR and PQ, with alpha and without."""
    tags = ColorTags(ColorRange.LIMITED, Matrix.BT709)
    source, target = coding_for(pix_fmt, (28, 20), tags), coding_for(pix_fmt, (56, 40), tags)
    channels = 4 if source.layout.alpha else 3
    coded = [
        CodedFrame(source.of_picture(frame), source, pts=index, duration=1)
        for index, frame in enumerate(clip(12, channels=channels))
    ]
    frames = [frame.on("cpu") for frame in coded]
    pictures = list(stub(vae_span=span).upscale(frames, transfer=transfer))
    assert {frame.shape[0] for frame in pictures} == {channels}
    codes = list(stub(vae_span=span).upscale(coded, transfer=transfer, encoded=target.of_picture))
    assert len(codes) == 12
    assert all(torch.equal(a, target.of_picture(b)) for a, b in zip(codes, pictures, strict=True))


def test_no_frames_give_no_frames():
    assert list(stub().upscale([])) == []


@pytest.mark.parametrize("span", ["clip", "chunk"])
def test_alpha_is_upscaled_along(span):
    out = list(stub(vae_span=span).upscale(clip(3, channels=4)))
    assert [frame.shape for frame in out] == [(4, 40, 56)] * 3
    assert set(out[0][3].unique().tolist()) <= {0.0, 1.0} or out[0][3].std() > 0.3


@pytest.mark.parametrize("span", ["clip", "chunk"])
def test_one_decision_for_all_alphas(monkeypatch, span):
    asked = []

    def is_mask(alpha):
        asked.append(alpha.shape[0])
        return True

    monkeypatch.setattr("seedvr2_engine.pipeline.clip_stages.is_mask", is_mask)
    list(stub(vae_span=span).upscale(clip(40, channels=4)))
    assert asked == [9]


@pytest.mark.parametrize("span", ["clip", "chunk"])
def test_prepended_frames_are_left_out(span):
    plain = torch.stack(list(stub(color="none", vae_span=span).upscale(clip(9))))
    longer = torch.stack(list(stub(color="none", vae_span=span, prepend_frames=4).upscale(clip(9))))
    assert longer.shape == plain.shape
    # The stub decodes latent j from frame 4j, and four frames in front keep that alignment.
    torch.testing.assert_close(longer[1:5], plain[1:5])


def test_a_transformer_that_sees_no_neighbours_leaves_no_border():
    """The VAE passes the clip as one, so that chunks of a transformer without attention make no difference at all."""
    whole = torch.stack(list(stub(noise_share=0.1, chunk_frames=45, color="wavelet").upscale(clip(37))))
    for chunk_frames, overlap in ((9, 0), (9, 1), (9, 5), (21, 5), (5, 3)):
        upscaler = stub(noise_share=0.1, chunk_frames=chunk_frames, overlap=overlap, color="wavelet")
        torch.testing.assert_close(torch.stack(list(upscaler.upscale(clip(37)))), whole)


@pytest.mark.parametrize("span", ["clip", "chunk"])
def test_frames_of_a_clip_that_repeats_are_alike_across_chunks(span):
    """Noise belongs to positions, so that shared latents of neighbouring chunks agree to the last bit."""
    frames = [clip(1)[0]] * 29
    out = torch.stack(list(stub(noise_share=0.1, color="none", vae_span=span).upscale(frames)))
    whole = torch.stack(list(stub(noise_share=0.1, color="none", chunk_frames=29).upscale(frames)))
    # Frames 1 to 3 of a later chunk come from a latent with the same number as in the whole clip.
    torch.testing.assert_close(out[5:9], whole[5:9])
    torch.testing.assert_close(out[9:13], whole[9:13])


def test_reference_noise_starts_anew():
    frames = [clip(1)[0]] * 17
    options = {"noise_share": 0.1, "color": "none", "overlap": 0, "chunk_frames": 5, "vae_span": "chunk"}
    out = torch.stack(list(stub(**options, noise="reference").upscale(frames)))
    torch.testing.assert_close(out[1], out[6])
    other = torch.stack(list(stub(**options).upscale(frames)))
    assert (other[1] - other[6]).abs().max() > 0.01


@pytest.mark.parametrize(("option", "value"), [("seed", 43), ("input_noise", 0.5), ("latent_noise", 0.5)])
def test_what_noise_depends_on(option, value):
    first = torch.stack(list(stub(noise_share=0.1).upscale(clip(5))))
    other = torch.stack(list(stub(noise_share=0.1, **{option: value}).upscale(clip(5))))
    assert (first - other).abs().max() > 1e-3


class WatchedVAE(StubVAE):
    """Keeps what it is to encode."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def stream_encode(self, frames, **how):
        return super().stream_encode((self.seen.append(frame) or frame for frame in frames), **how)


@pytest.mark.parametrize("kind", ["position", "reference"])
@pytest.mark.parametrize("span", ["clip", "chunk"])
def test_input_noise_has_the_strength_it_says(kind, span):
    vae = WatchedVAE()
    options = UpscaleOptions(
        scale=1, color="none", chunk_frames=5, overlap=0, input_noise=0.8, vae_span=span, noise=kind
    )
    list(Upscaler(StubDiT(0.0), vae, options, text=EMPTY_TEXT).upscale([torch.full((3, 160, 160), 0.5)] * 9))
    assert len(vae.seen) == (9 if span == "clip" else 10)
    for picture in vae.seen:
        assert picture.std().item() == pytest.approx(0.025 * 0.8, rel=0.02)
    assert len({picture[0, 0, 0, 0].item() for picture in vae.seen[:9]}) == 9


class Watched:
    """Frames whose lives can be counted."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.alive: weakref.WeakSet = weakref.WeakSet()
        self.most = 0

    def __iter__(self):
        picture = clip(1)[0]
        for _ in range(self.count):
            frame = picture.clone()
            self.alive.add(frame)
            self.most = max(self.most, len(self.alive))
            yield frame
            del frame


@pytest.mark.parametrize("span", ["clip", "chunk"])
def test_the_number_of_frames_alive_does_not_depend_on_the_length(span):
    most = []
    for count in (40, 160):
        frames = Watched(count)
        assert sum(1 for _ in stub(color="none", vae_span=span).upscale(frames)) == count
        most.append(frames.most)
    assert most[1] == most[0] <= 2 * 9


def test_frames_are_taken_as_chunks_need_them():
    taken = []

    def source():
        for index, frame in enumerate(clip(30)):
            taken.append(index)
            yield frame

    stream = stub().upscale(source())
    next(stream)
    assert len(taken) == 9


@pytest.mark.parametrize("span", ["clip", "chunk"])
def test_progress_of_every_stage_reaches_the_end(span):
    steps: list[Progress] = []
    list(stub(prepend_frames=2, vae_span=span).upscale(clip(21), steps.append))
    for stage in ("encode", "transform", "decode", "color"):
        frames = [step.frames for step in steps if step.stage == stage]
        assert min(frames) >= 0
        assert max(frames) == frames[-1] == 21


def test_an_error_in_the_callback_cancels():
    def cancel(step: Progress) -> None:
        if step.stage == "decode" and step.frames > 9:
            raise InterruptedError

    stream = stub(vae_span="chunk").upscale(clip(40), cancel)
    # The five frames that the second chunk shares with the first are not out yet.
    assert [next(stream).shape[0] for _ in range(4)] == [3] * 4
    with pytest.raises(InterruptedError):
        next(stream)


@pytest.mark.parametrize("second", [torch.rand(3, 20, 30), torch.rand(4, 20, 28), torch.rand(20, 28)])
def test_other_shapes_midway_are_refused(second):
    with pytest.raises(InvalidArgumentError, match="frame 1: expected"):
        list(stub().upscale([clip(1)[0], second]))


def test_whole_numbers_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"frame 0: expected floating point .* got torch.uint8"):
        list(stub().upscale([torch.zeros(3, 8, 8, dtype=torch.uint8)]))


def test_models_the_wrong_way_round_are_refused(tiny_vae, tiny_dit):
    with pytest.raises(InvalidArgumentError, match="expected a transformer and then a VAE, got VideoVAE and NaDiT"):
        Upscaler(tiny_vae, tiny_dit, text=EMPTY_TEXT)


@pytest.mark.parametrize("span", ["clip", "chunk"])
@pytest.mark.parametrize("color", ["wavelet", "lab", "none"])
def test_numbers_that_are_none_count_as_black_and_white(span, color):
    frames = clip(10)
    frames[3][:, 4, 5] = torch.nan
    frames[4][0] = torch.inf
    frames[9][1, :, 2] = -torch.inf
    given = [frame.clone() for frame in frames]
    clean = [frame.nan_to_num(0, 1, 0) for frame in frames]
    out, expected = (torch.stack(list(stub(vae_span=span, color=color).upscale(each))) for each in (frames, clean))
    assert torch.equal(out, expected)
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(frames, given, strict=True))


def test_what_a_model_makes_of_numbers_that_overflow_is_clamped(monkeypatch):
    upscaler = stub(color="none")
    decode = upscaler.vae.stream_decode

    def spoilt(*args, **kwargs):
        for frame in decode(*args, **kwargs):
            frame[..., 0, 0], frame[..., 0, 1] = torch.nan, torch.inf
            yield frame

    monkeypatch.setattr(upscaler.vae, "stream_decode", spoilt)
    for frame in upscaler.upscale(clip(5)):
        assert 0 <= frame.min() <= frame.max() <= 1


@pytest.mark.parametrize("frame", [None, "a", torch.zeros(3, 0, 8), torch.zeros(3, 8, 8).numpy()])
def test_frames_that_are_none_are_refused(frame):
    with pytest.raises(InvalidArgumentError, match="frame 0: expected"):
        next(stub().upscale([frame]))


def test_the_memory_of_a_short_clip_is_that_of_its_frames(tiny_vae, tiny_dit):
    options = UpscaleOptions(scale=2, chunk_frames=45, vae_span="clip")
    upscaler = Upscaler(tiny_dit, tiny_vae, options, text=torch.zeros(7, 64))
    assert upscaler.memory((20, 28), 1).peak_bytes < upscaler.memory((20, 28)).peak_bytes
    assert upscaler.memory((20, 28), 100) == upscaler.memory((20, 28))
