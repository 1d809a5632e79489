"""Schedule, Euler steps, condition and noise against the public reference."""

import pytest
import torch
from safetensors.torch import load_file

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.models.dit import sampler
from seedvr2_engine.models.dit.noise import _normal, latent_noise, reference_noise
from seedvr2_engine.models.dit.sampler import (
    dit_input,
    interpolate,
    noise_condition,
    predict_ends,
    sample,
    shift_timestep,
    timesteps,
)

from ...conftest import GOLDEN

CASES = load_file(GOLDEN / "sampler_cases.safetensors")
CPU = torch.device("cpu")


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
def test_timesteps(steps):
    assert torch.allclose(torch.tensor(timesteps(steps)), CASES[f"timesteps/steps{steps}"], rtol=1e-6)


def test_schedule():
    clean, noise = torch.eye(2)
    for timestep, a, b in zip(*(CASES[f"schedule/{name}"].tolist() for name in "tAB"), strict=True):
        assert interpolate(clean, noise, timestep).tolist() == pytest.approx([a, b], abs=1e-6)


def test_the_ends_are_those_of_the_line():
    clean, noise = torch.randn(2, 5, 16, dtype=torch.float64)
    noisy = interpolate(clean, noise, 413.5)
    for found, expected in zip(predict_ends(noisy, noise - clean, 413.5), (clean, noise), strict=True):
        assert torch.allclose(found, expected)


def walk(steps):
    weight, predictions = CASES[f"euler/steps{steps}/W"], []

    def velocity(x, timestep):
        predictions.append(torch.tanh(x @ weight) + timestep / 1000)
        return predictions[-1]

    return sample(velocity, CASES[f"euler/steps{steps}/x_T"], steps), torch.stack(predictions)


def euler_error(steps):
    out, predictions = walk(steps)
    if predictions.shape != CASES[f"euler/steps{steps}/preds"].shape:
        return float("inf")
    errors = out - CASES[f"euler/steps{steps}/x0"], predictions - CASES[f"euler/steps{steps}/preds"]
    return max(error.abs().max().item() for error in errors)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_euler_steps(steps):
    assert euler_error(steps) <= 1e-6


def test_one_step_in_bfloat16_is_exact():
    prediction = CASES["euler/bf16/pred"]
    assert torch.equal(sample(lambda _x, _t: prediction, CASES["euler/bf16/x_T"]), CASES["euler/bf16/x0"])


def test_no_steps_are_refused():
    with pytest.raises(InvalidArgumentError, match="expected at least 1, got 0"):
        sample(lambda x, _t: x, torch.zeros(1), steps=0)


@pytest.mark.parametrize("kind", ["v", "i"])
def test_condition(kind):
    latent = CASES[f"cond/{kind}/latent_blur"]
    noisy = torch.randn_like(latent)
    video = dit_input(noisy, latent)
    assert video.shape == (*latent.shape[:3], 33)
    assert torch.equal(video[..., :16], noisy)
    assert torch.equal(video[..., 16:], CASES[f"cond/{kind}/out"])


def test_condition_of_another_shape_is_refused():
    with pytest.raises(InvalidArgumentError, match="condition: expected the shape of the noisy latent"):
        dit_input(torch.zeros(1, 2, 2, 16), torch.zeros(1, 2, 4, 16))


def shift_error():
    shapes, times = CASES["transform/latent_shapes"].tolist(), CASES["transform/t_in"].tolist()
    shifted = torch.tensor([[shift_timestep(time, tuple(shape)) for time in times] for shape in shapes])
    return (shifted - CASES["transform/t_out"]).abs().max().item()


def test_shift_of_a_timestep():
    assert shift_error() <= 1e-3


def condition_error(kind, scale):
    case = f"latent_noise/{kind}"
    noises = CASES[f"{case}/base_noise"], CASES[f"{case}/second_noise"]
    out = noise_condition(CASES[f"{case}/x"], noises, scale)
    return (out - CASES[f"{case}/scale{scale}/out"]).abs().max().item()


@pytest.mark.parametrize("kind", ["v", "i"])
@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0])
def test_noise_on_the_condition(kind, scale):
    assert condition_error(kind, scale) <= 1e-5
    time = CASES[f"latent_noise/{kind}/scale{scale}/t"].item()
    size = CASES[f"latent_noise/{kind}/x"].shape[1:]
    assert shift_timestep(1000 * scale, tuple(size)) == pytest.approx(time, abs=1e-3)


def test_no_noise_on_the_condition():
    latent = torch.randn(1, 2, 2, 16)
    assert noise_condition(latent, (latent, latent), 0) is latent
    with pytest.raises(InvalidArgumentError, match=r"expected a scale from 0 to 1, got 1\.5"):
        noise_condition(latent, (latent, latent), 1.5)


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "fp32"), (torch.bfloat16, "bf16")])
def test_reference_noise(dtype, name):
    first, second = reference_noise(CASES["noise_cpu/seed"].item(), (2, 3, 4, 16), dtype=dtype, device=CPU)
    assert torch.equal(first, CASES[f"noise_cpu/{name}_channels_first_memory"])
    assert second.shape == first.shape
    assert not torch.equal(first, second)


def noise(frames, size=(20, 24), **how):
    return latent_noise(how.pop("seed", 42), frames, size, device=CPU, **how)


def test_noise_is_normal_and_uncorrelated():
    x = noise(range(8), (64, 96)).double()
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01
    assert abs((x**4).mean() - 3) < 0.1
    assert 4 < x.abs().max() < 6.7
    for axis in range(4):
        length = x.shape[axis] - 1
        assert abs((x.narrow(axis, 0, length) * x.narrow(axis, 1, length)).mean()) < 0.01
    for other in (noise(range(8), (64, 96), seed=43), noise(range(8), (64, 96), stream=1)):
        assert abs((x * other).mean()) < 0.01


@pytest.mark.parametrize("channels", [3, 16])
def test_every_position_and_channel_has_a_number_of_its_own(channels):
    x = latent_noise(7, range(2), (9, 11), channels=channels, device=CPU)
    assert len(x.unique()) >= x.numel() - 2


def test_the_numbers_of_a_seed_stay():
    """Who has kept a seed expects the same picture of the next version."""
    x = latent_noise(42, range(3, 4), (2, 2), channels=2, device=CPU)
    expected = [-1.32345, -1.33353, 1.3903, -0.18764, -2.06102, -0.45659, -0.39238, -0.48712]
    torch.testing.assert_close(x.flatten(), torch.tensor(expected), atol=2e-5, rtol=0)
    other = latent_noise(42, range(3, 4), (1, 1), channels=2, stream=1, device=CPU)
    torch.testing.assert_close(other.flatten(), torch.tensor([-0.3332, 0.70167]), atol=2e-5, rtol=0)


def test_all_bits_give_a_finite_number():
    assert torch.isfinite(_normal(torch.tensor([0, 1, -1, 1 << 31, (1 << 32) - 1, 1 << 32, -(1 << 63)]))).all()


def test_noise_belongs_to_a_position_and_not_to_a_chunk():
    whole = noise(range(3, 10))
    assert torch.equal(whole[2:5], noise(range(5, 8)))
    assert torch.equal(whole[:, :12, :7], noise(range(3, 10), (12, 7)))
    assert torch.equal(whole, noise(range(3, 10)))
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1])
def test_every_seed_is_its_own(seed):
    x = noise(range(2), seed=seed)
    assert torch.isfinite(x).all()
    assert abs(x.std() - 1) < 0.05
    assert not torch.equal(x, noise(range(2), seed=seed ^ 4))


def test_noise_of_no_size_is_refused():
    with pytest.raises(InvalidArgumentError, match="rows and columns"):
        noise(range(1), (0, 4))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("timesteps", lambda steps: [1000 * (steps - 1 - i) / steps for i in range(steps)]),
        ("interpolate", lambda clean, noise, timestep: sampler.predict_ends(clean, noise, timestep)[0]),
        ("predict_ends", lambda noisy, velocity, timestep: (noisy + velocity, noisy)),
    ],
)
def test_a_wrong_step_is_noticed(monkeypatch, name, wrong):
    monkeypatch.setattr(sampler, name, wrong)
    assert euler_error(4) > 0.01


def test_a_wrong_shift_is_noticed(monkeypatch):
    monkeypatch.setattr(sampler, "_line", lambda _x, start, _end: start[1])
    assert shift_error() > 1
    assert condition_error("v", 0.5) > 0.01
