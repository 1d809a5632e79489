"""Files become models that are ready to use, or an error that callers can tell from others."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine import errors
from seedvr2_engine.checkpoint.detect_dit import detect_dit, load_dit_tensors
from seedvr2_engine.checkpoint.opening import open_checkpoint
from seedvr2_engine.loading import load_vae
from seedvr2_engine.loading_dit import load_dit

from .conftest import GOLDEN

VAE, DIT = GOLDEN / "vae_tiny.safetensors", GOLDEN / "dit_tiny_3b.safetensors"


@pytest.mark.parametrize(("load", "path"), [(load_vae, VAE), (load_dit, DIT)])
def test_a_loaded_model_is_not_trained(load, path):
    model = load(path, dtype=torch.bfloat16)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.dtype == torch.bfloat16
    with pytest.raises(errors.InvalidArgumentError, match=r"dtype: expected torch.float32, .* got torch.int8"):
        load(path, dtype=torch.int8)


def stop() -> None:
    raise KeyboardInterrupt


def test_a_transformer_that_several_threads_read_is_the_same_and_can_be_stopped():
    with open_checkpoint(DIT) as checkpoint:
        config = detect_dit(checkpoint)
        alone = dict(load_dit_tensors(checkpoint, config, torch.float32))
        together = dict(load_dit_tensors(checkpoint, config, torch.float32, threads=4))
        assert list(alone) == list(together)
        assert all(torch.equal(alone[name], together[name]) for name in alone)
        reads = iter(range(5))
        checkpoint.on_read = lambda: next(reads, None) is None and stop()
        with pytest.raises(KeyboardInterrupt):
            dict(load_dit_tensors(checkpoint, config, torch.float32, threads=4))


@pytest.mark.parametrize(("factor", "is_right"), [(1 + 1 / 17, True), (1 + 1 / 12, False), (0.5, False)])
def test_rotary_frequencies_are_within_what_fp8_makes_of_them(factor, is_right, tmp_path):
    tensors = load_file(DIT)
    names = [name for name in tensors if name.endswith("rope.freqs")]
    assert names
    for name in names:
        tensors[name] = tensors[name] * factor
    save_file(tensors, tmp_path / "dit.safetensors")
    if is_right:
        load_dit(tmp_path / "dit.safetensors")
    else:
        with pytest.raises(errors.CheckpointError, match="expected the rotary frequencies of the 3b family"):
            load_dit(tmp_path / "dit.safetensors")


def test_errors_are_of_one_family_and_wrong_arguments_are_values():
    for error in (errors.InvalidArgumentError, errors.CheckpointError, errors.VideoError, errors.OutputError):
        assert issubclass(error, errors.SeedVR2Error)
    assert issubclass(errors.InvalidArgumentError, ValueError)
