"""The plain model against the public reference, in FP32 on the CPU."""

import hashlib
import re

import pytest
import torch
from safetensors.torch import load_file

from seedvr2_engine.models.vae.causal import CausalCache
from seedvr2_engine.models.vae.config import VAEConfig
from seedvr2_engine.models.vae.model import VideoVAE
from seedvr2_engine.models.vae.tiling import TileSpec

from ...conftest import GOLDEN, TINY
from .formula_weights import formula_state, formula_tensor

TOLERANCE = 5e-5

DECODE = ["decode_1x6x9", "decode_2x6x9", "decode_3x5x7", "decode_4x5x7", "decode_b2_2x3x4"]
ENCODE = ["encode_1x48x72", "encode_5x48x72", "encode_9x40x56", "encode_13x40x24", "encode_5x45x61"]
TILED = [
    "tiled_decode_1x6x7_tile24x24_ov0x0",
    "tiled_decode_2x9x11_tile40x48_ov16x16",
    "tiled_decode_3x6x7_tile32x32_ov12x8",
    "tiled_encode_1x56x72_tile32x32_ov8x16",
    "tiled_encode_5x72x88_tile40x48_ov16x16",
    "tiled_encode_9x40x40_tile32x32_ov16x8",
]


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.shape == expected.shape
    error = (actual - expected).abs()
    assert error.max() <= TOLERANCE, f"largest error {error.max():.2e} at {error.argmax()}"


def encode_moments(vae: VideoVAE, x: torch.Tensor, **how) -> torch.Tensor:
    return torch.cat(vae.encode_distribution(x, **how), dim=1)


@pytest.mark.parametrize("case", DECODE)
def test_decode(tiny_vae, tiny_cases, case):
    assert_close(tiny_vae.decode(tiny_cases[f"{case}.z"]), tiny_cases[f"{case}.out"])


@pytest.mark.parametrize("case", ["decode_3x5x7", "decode_4x5x7"])
def test_decode_in_slices(tiny_vae, tiny_cases, case):
    assert_close(tiny_vae.decode(tiny_cases[f"{case}.z"], slice_frames=4), tiny_cases[f"{case}.out_sliced"])


@pytest.mark.parametrize("case", ENCODE)
def test_encode(tiny_vae, tiny_cases, case):
    x = tiny_cases[f"{case}.x"]
    assert_close(encode_moments(tiny_vae, x), tiny_cases[f"{case}.moments"])
    mode = tiny_cases[f"{case}.latent_mode"]
    assert_close(tiny_vae.encode(x), mode if mode.ndim == 5 else mode[:, :, None])


@pytest.mark.parametrize("case", ["encode_9x40x56", "encode_13x40x24"])
def test_encode_in_slices(tiny_vae, tiny_cases, case):
    moments = encode_moments(tiny_vae, tiny_cases[f"{case}.x"], slice_frames=4)
    assert_close(moments, tiny_cases[f"{case}.moments_sliced"])


def test_posterior(tiny_vae, tiny_cases):
    mean, logvar = tiny_vae.encode_distribution(tiny_cases["encode_5x48x72.x"])
    assert_close(mean, tiny_cases["encode_5x48x72.posterior_mean"])
    assert_close(logvar, tiny_cases["encode_5x48x72.posterior_logvar"])
    assert_close((logvar / 2).exp(), tiny_cases["encode_5x48x72.posterior_std"])


@pytest.mark.parametrize(("raw", "clamped"), [(-100.0, -30.0), (-25.0, -25.0), (15.0, 15.0), (100.0, 20.0)])
def test_the_log_variance_is_clamped(raw, clamped):
    vae = VideoVAE(TINY)
    last = vae.encoder.conv_out
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, raw)
    mean, logvar = vae.encode_distribution(torch.zeros(1, 3, 1, 16, 16))
    assert mean.unique().tolist() == [raw]
    assert logvar.unique().tolist() == [clamped]


@pytest.mark.parametrize("case", TILED)
def test_tiles(tiny_vae, tiny_cases, case):
    sizes = [int(n) for n in re.search(r"tile(\d+)x(\d+)_ov(\d+)x(\d+)", case).groups()]
    tile = TileSpec(size_px=(sizes[0], sizes[1]), overlap_px=(sizes[2], sizes[3]))
    if "decode" in case:
        actual = tiny_vae.decode(tiny_cases[f"{case}.z"], slice_frames=4, tile=tile)
        expected = tiny_cases[f"{case}.out"]
    else:
        actual = encode_moments(tiny_vae, tiny_cases[f"{case}.x"], slice_frames=4, tile=tile)
        expected = tiny_cases[f"{case}.moments"]
    assert_close(actual, expected if expected.ndim == 5 else expected[:, :, None])


@pytest.mark.parametrize(("case", "result"), [("inter_decode", "out"), ("inter_encode", "moments")])
def test_activations_at_block_borders(tiny_vae, tiny_cases, case, result):
    seen: dict[str, torch.Tensor] = {}
    hooks = []
    for key in tiny_cases:
        name = key.removeprefix(f"{case}.")
        if not key.startswith(case) or name in ("x", "z", result):
            continue
        if name.endswith(".input"):
            module = tiny_vae.get_submodule(name.removesuffix(".input"))
            hooks.append(module.register_forward_pre_hook(lambda _m, args, n=name: seen.update({n: args[0]})))
        else:
            module = tiny_vae.get_submodule(name)
            hooks.append(module.register_forward_hook(lambda _m, _a, out, n=name: seen.update({n: out})))
    with torch.no_grad():
        if case == "inter_decode":
            out = tiny_vae.decoder(tiny_cases[f"{case}.z"])
        else:
            out = tiny_vae.encoder(tiny_cases[f"{case}.x"])
    for hook in hooks:
        hook.remove()
    assert_close(out, tiny_cases[f"{case}.{result}"])
    assert len(seen) >= 12
    for name, activation in seen.items():
        assert_close(activation, tiny_cases[f"{case}.{name}"])


@pytest.mark.parametrize(
    ("case", "network", "source", "result", "cuts"),
    [("mem_decode", "decoder", "z", "out", (2, 1)), ("mem_encode", "encoder", "x", "moments", (5, 4))],
)
def test_carried_tails(tiny_vae, tiny_cases, case, network, source, result, cuts):
    cache = CausalCache()
    for index, part in enumerate(tiny_cases[f"{case}.{source}"].split(cuts, dim=2)):
        with torch.no_grad():
            out = tiny_vae.get_submodule(network)(part, cache)
        assert_close(out, tiny_cases[f"{case}.slice{index}.{result}"])
        prefix = f"{case}.after_slice{index}."
        names = [key.removeprefix(prefix) for key in tiny_cases if key.startswith(prefix)]
        assert names
        for name in names:
            assert_close(cache[tiny_vae.get_submodule(name)], tiny_cases[prefix + name])


def test_formula_weights_are_the_stored_ones():
    stored = load_file(GOLDEN / "vae_tiny.safetensors")
    for name, shape in TINY.tensor_shapes().items():
        assert torch.equal(formula_tensor("A", name, shape), stored[name])


@pytest.mark.slow
def test_public_widths():
    state = formula_state("F", VAEConfig())
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    assert digest.hexdigest() == "d1e67d227d403bf91578514f1114c843a81f69d74f2c6e4c12bbeeafb434be8d"

    with torch.device("meta"):
        vae = VideoVAE(VAEConfig())
    vae.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    del state
    cases = load_file(GOLDEN / "vae_fullwidth_cases.safetensors")
    for key, source in cases.items():
        case, kind = key.rsplit(".", 1)
        if kind == "z":
            assert_close(vae.decode(source), cases[f"{case}.out"])
            if f"{case}.out_sliced" in cases:
                assert_close(vae.decode(source, slice_frames=4), cases[f"{case}.out_sliced"])
        elif kind == "x":
            assert_close(encode_moments(vae, source), cases[f"{case}.moments"])
            if f"{case}.moments_sliced" in cases:
                assert_close(encode_moments(vae, source, slice_frames=4), cases[f"{case}.moments_sliced"])
