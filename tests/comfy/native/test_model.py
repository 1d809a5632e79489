"""The MODEL for ComfyUI's own SeedVR2 nodes: what its sampler calls, and what it gets."""

import types

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.loading_dit import load_dit
from seedvr2_engine.models.dit.sampler import dit_input

from ...conftest import GOLDEN

FILE = "native_dit.safetensors"
TEXT = torch.randn(7, 64, generator=torch.manual_seed(1))


class Flow:
    """ComfyUI's sampling of rectified flows."""

    def timestep(self, sigma):
        return 1000 * sigma

    def calculate_input(self, sigma, x):
        return x

    def calculate_denoised(self, sigma, velocity, x):
        return x - velocity * sigma.view(-1, 1, 1, 1, 1)


class NativeModel:
    """A patcher with a model in it, and the hooks that nodes may use."""

    def __init__(self, model):
        self.model, self.load_device = model, torch.device("cpu")
        self.patches, self.additional, self.wrapper = {}, {}, None

    def clone(self):
        copy = NativeModel(self.model)
        copy.patches = dict(self.patches)
        return copy

    def set_additional_models(self, key, models):
        self.additional[key] = models

    def set_model_unet_function_wrapper(self, wrapper):
        self.wrapper = wrapper


class Base:
    """A BaseModel."""

    def __init__(self):
        self.model_sampling = Flow()
        self.diffusion_model = types.SimpleNamespace(positive_conditioning=TEXT, negative_conditioning=TEXT)

    def apply_model(self, *_, **__):
        raise AssertionError("the native model is not called")


@pytest.fixture
def sampled(nodes, comfyui):
    weights = {**load_file(GOLDEN / "dit_tiny_3b.safetensors"), "positive_conditioning": TEXT}
    save_file(weights, comfyui.root / "models" / "diffusion_models" / FILE)
    base = Base()
    native = NativeModel(base)
    model = nodes["SeedVR2EngineModel"].execute(model=native, file=FILE).args[0]
    assert native.wrapper is None
    assert not native.additional
    return base, model


def arguments(clips=2, sigma=1.0, **changed):
    generator = torch.manual_seed(5)
    noisy = torch.randn(clips, 16, 2, 4, 6, generator=generator)
    low = torch.randn(clips, 16, 2, 4, 6, generator=generator)
    condition = torch.cat([low, torch.ones_like(low[:, :1])], dim=1)
    c = {"c_crossattn": TEXT.expand(clips, -1, -1), "condition": condition, "transformer_options": {}, **changed}
    return noisy, low, {"input": noisy, "timestep": torch.full((clips,), sigma), "c": c, "cond_or_uncond": [0]}


@pytest.mark.parametrize("sigma", [1.0, 0.5])
def test_latents_are_the_transformers(sampled, sigma):
    base, model = sampled
    plain = load_dit(GOLDEN / "dit_tiny_3b.safetensors")
    noisy, low, call = arguments(sigma=sigma)
    expected = []
    for clip, condition in zip(noisy.movedim(1, -1), low.movedim(1, -1), strict=True):
        expected.append(clip - sigma * plain(dit_input(clip, condition), TEXT, 1000 * sigma))
    found = model.wrapper(base.apply_model, call)
    assert found.shape == noisy.shape
    torch.testing.assert_close(found, torch.stack(expected).movedim(-1, 1), atol=1e-5, rtol=0)


def test_it_is_loaded_with_the_model_and_comes_back(sampled, comfyui):
    base, model = sampled
    (resident,) = model.additional["seedvr2_engine"]
    assert resident.clone() is resident
    assert resident.loaded_size() == 0
    comfyui.management.load_models_gpu([resident])
    assert resident.loaded_size() > 0
    call = arguments()[2]
    first = model.wrapper(base.apply_model, call)
    comfyui.management.unload_all_models()
    assert resident.loaded_size() == 0
    assert torch.equal(model.wrapper(base.apply_model, call), first)


def test_what_it_cannot_do_is_said(nodes, sampled):
    base, model = sampled
    node = nodes["SeedVR2EngineModel"]
    with pytest.raises(InvalidArgumentError, match="model: expected ComfyUI's own SeedVR2, found object"):
        node.execute(model=types.SimpleNamespace(model=types.SimpleNamespace(diffusion_model=object())), file=FILE)
    patched = NativeModel(base)
    patched.patches = {"a": 1}
    with pytest.raises(InvalidArgumentError, match="without LoRA"):
        node.execute(model=patched, file=FILE)
    base.current_patcher = patched
    with pytest.raises(InvalidArgumentError, match="without LoRA"):
        model.wrapper(base.apply_model, arguments()[2])
    del base.current_patcher
    for changed in ({"condition": None}, {"condition": torch.zeros(2, 34, 4, 6)}, {"c_crossattn": None}):
        with pytest.raises(InvalidArgumentError, match="connect SeedVR2 Conditioning"):
            model.wrapper(base.apply_model, arguments(**changed)[2])
    assert node.validate_inputs(file=FILE) is True
    assert "none of the offered files" in node.validate_inputs(file="no_such.gguf")
