"""What nodes hand on: every input to its own option, memory to the right device, and how far they have come."""

import logging
from types import SimpleNamespace

import pytest
import torch

from seedvr2_engine.checkpoint.locating.registry import ModelFile
from seedvr2_engine.errors import ModelFileError
from seedvr2_engine.pipeline.options import UpscaleOptions


def test_every_input_of_the_upscaler_becomes_its_own_option(comfyui, caplog):
    from seedvr2_engine.comfy.upscaling import UpscaleRequest

    request = UpscaleRequest(
        seed=7, resolution=720, max_resolution=1280, batch_size=9, temporal_overlap=3, prepend_frames=2,
        color_correction="hsv", input_noise_scale=0.25, latent_noise_scale=0.5,
    )  # fmt: skip
    assert request.options() == UpscaleOptions(
        resolution=720, max_resolution=1280, chunk_frames=9, overlap=3, prepend_frames=2, color="hsv", seed=7,
        input_noise=0.25, latent_noise=0.5,
    )  # fmt: skip
    assert UpscaleRequest(seed=1).options().max_resolution is None
    caplog.set_level(logging.WARNING)
    assert UpscaleRequest(seed=1, batch_size=5, temporal_overlap=4).options().overlap == 4
    assert caplog.text == ""
    assert UpscaleRequest(seed=1, batch_size=5, temporal_overlap=5).options().overlap == 0
    assert "temporal_overlap 5: batches of 5 have no overlap" in caplog.text


@pytest.mark.parametrize(
    ("swapped", "device", "offload"), [(0, "cuda", "auto"), (1, "cuda", "blocks"), (9, "cpu", "auto")]
)
def test_one_block_to_swap_sends_them_all_to_the_host(comfyui, monkeypatch, swapped, device, offload):
    from seedvr2_engine.comfy import dit_model

    asked = []
    planned = SimpleNamespace(offload=False, weights_bytes=1, device=torch.device("cpu"))
    monkeypatch.setattr(dit_model, "device_of", torch.device)
    monkeypatch.setattr(dit_model, "resolve_dit_dtype", lambda *_: torch.float32)
    monkeypatch.setattr(dit_model, "plan_dit", lambda *how: asked.append(how[-1]) or planned)
    dit_model.find_dit_model(dit_model.DiTRequest("nano", device, blocks_to_swap=swapped))
    assert asked == [offload]


def test_room_is_made_for_what_is_not_on_the_device_yet(comfyui, monkeypatch):
    from seedvr2_engine.comfy import upscaling

    made = []
    monkeypatch.setattr(upscaling, "make_room", lambda residents, device, size: made.append((device, size)))

    def model(taken_bytes, device):
        resident = SimpleNamespace(loaded_size=lambda: taken_bytes, load_device=torch.device(device))
        return SimpleNamespace(resident=resident, device=resident.load_device)

    for dit_device, needed, expected in (("cuda:0", 100, 50), ("cpu", 100, 80), ("cuda:0", 40, 0)):
        upscaling._make_room(model(30, dit_device), model(20, "cuda:0"), SimpleNamespace(needed_bytes=needed))
        assert made.pop() == (torch.device("cuda:0"), expected)


def test_room_is_made_on_gpus_alone_and_not_by_these_models(comfyui, monkeypatch):
    from seedvr2_engine.comfy.residency import make_room

    freed = []
    own, other = SimpleNamespace(), SimpleNamespace()
    books = [SimpleNamespace(model=own), SimpleNamespace(model=other)]
    monkeypatch.setattr(comfyui.management, "current_loaded_models", books)
    monkeypatch.setattr(comfyui.management, "free_memory", lambda *how, **kept: freed.append((*how, kept)))
    make_room([own], torch.device("cpu"), 10)
    assert freed == []
    make_room([own], torch.device("cuda:0"), 10)
    assert freed == [(10, torch.device("cuda:0"), {"keep_loaded": books[:1]})]


def test_pictures_are_shown_now_and_then_and_a_bar_has_an_end(comfyui, monkeypatch):
    from seedvr2_engine.comfy import progress

    now_s = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    comfyui.management.countdown = None
    bar = progress.NodeProgress(4, {"first": 0.25, "second": 0.75})
    shown = []
    for time_s in (100.0, 100.3, 100.49, 100.51, 100.9, 101.1):
        now_s[0] = time_s
        bar.step(1, "first", torch.rand(3, 8, 8))
        shown.append(comfyui.bars[-1].updates[-1][2] is not None)
    assert shown == [True, False, False, True, False, True]
    bar.step(2, "second")
    assert bar.share_done == pytest.approx(0.25 / 4 + 0.75 / 2)
    bar.step(1, "second")  # Frames that batches share pass a stage twice.
    assert bar.share_done == pytest.approx(0.25 / 4 + 0.75 / 2)
    bar.step(9, "second")
    assert bar.share_done == pytest.approx(0.25 / 4 + 0.75)


def test_names_of_files_are_not_longer_than_file_systems_take(comfyui):
    from seedvr2_engine.comfy.latent_nodes import target_of
    from seedvr2_engine.errors import InvalidArgumentError

    assert target_of("x" * 195).name == "x" * 195 + ".gguf"
    with pytest.raises(InvalidArgumentError, match="of at most 200 bytes"):
        target_of("x" * 196)
    with pytest.raises(InvalidArgumentError, match="of at most 200 bytes"):
        target_of("é" * 98)


@pytest.mark.parametrize(("kind", "is_refused"), [("vae", True), ("text", True), ("dit", False)])
def test_other_content_of_a_public_file_s_size_is_refused_where_it_is_quickly_read(
    comfyui, monkeypatch, kind, is_refused
):
    from seedvr2_engine.comfy import model_files

    known = ModelFile("public.gguf", kind, "owner/name", "public.gguf", None, 4, "0" * 64, "A file.")
    monkeypatch.setattr(model_files, "MODEL_FILES", (known,))
    path = model_files.download_folder() / known.name
    path.write_bytes(b"else")
    try:
        if is_refused:
            with pytest.raises(ModelFileError, match="found other content of the same size"):
                model_files.locate(known.name, kind)
        else:
            assert model_files.locate(known.name, kind) == path
    finally:
        path.unlink()
