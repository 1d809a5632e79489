"""The transformer with matrices in 8 bits: right against emulated rounding, wherever its weights are."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from seedvr2_engine.bench.random_models import random_dit
from seedvr2_engine.engine.accuracy import dit_check
from seedvr2_engine.engine.accuracy.dit_check import MatrixError, Sample, check_dit, matrix_errors
from seedvr2_engine.engine.dit.backend import reference_tokens, triton_tokens
from seedvr2_engine.engine.dit.fused import FusedDiT
from seedvr2_engine.engine.dit.quantized import MATRICES, BlockFormat, QuantizedLinear, dequantize, matrix_of, quantize
from seedvr2_engine.engine.dit.weights import quantized, streamed
from seedvr2_engine.models.dit.config import DiTConfig
from seedvr2_engine.models.dit.noise import latent_noise
from seedvr2_engine.models.dit.sampler import dit_input
from seedvr2_engine.models.dit.sampler import sample as sample_one
from seedvr2_engine.quant.quantize import quantize_rows

FORMATS = ("int8", "fp8", "mxfp8", "nvfp4")
CONFIGS = {
    "3b": DiTConfig("3b", width=64, layers=3, separate_layers=1, heads=2, head_width=16, mlp_width=64, text_width=16),
    "7b": DiTConfig("7b", width=64, layers=3, separate_layers=3, heads=2, head_width=16, mlp_width=64, text_width=16),
}


def build(family):
    torch.manual_seed(0)
    return random_dit(CONFIGS[family], torch.device("cpu"), torch.float32)


def inputs():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 20, 20, 33, generator=generator), torch.randn(3, 16, generator=generator), 1000.0


def everything(format):
    return [BlockFormat.all_in(format)] * 3


def relative_rms(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


def emulated(dit, format):
    """The plain model, every product's operands rounded by hooks of this test's own."""

    def rounded(x):
        return dequantize(quantize(x, format))

    for name, module in dit.blocks.named_modules():
        if isinstance(module, torch.nn.Linear) and ("proj" in name):
            module.weight.data = rounded(module.weight.data)
            module.register_forward_pre_hook(lambda _, args: (rounded(args[0]),))
    for block in dit.blocks:  # The text's queries, keys and values do not go through the layer there.
        block.attn.register_forward_pre_hook(lambda _, args: (args[0], rounded(args[1]), *args[2:]))
    return dit


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("format", FORMATS)
def test_the_velocity_is_that_of_rounded_operands(family, format):
    expected = emulated(build(family), format)(*inputs())
    exact = build(family)(*inputs())
    out = FusedDiT(quantized(build(family), everything(format)), reference_tokens())(*inputs())
    # A value between two numbers may round either way, so the two are not equal, but far closer than to FP32.
    assert relative_rms(out, expected) < 0.35 * relative_rms(out, exact)
    assert 0 < relative_rms(out, exact) < (0.3 if format == "nvfp4" else 0.05)


@pytest.mark.parametrize("family", CONFIGS)
def test_weights_on_the_host_give_the_same(family):
    formats = [BlockFormat("int8", None, "int8", None), *everything("int8")[1:]]
    resident, offloaded = (
        FusedDiT(quantized(build(family), formats, offload=offload), reference_tokens()) for offload in (False, True)
    )
    assert torch.equal(resident(*inputs()), offloaded(*inputs()))
    assert offloaded.graphs.reason == "the weights come from the host"


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("formats", [["int8"] * 4, ["int8", None, None, "int8"], [None, "fp8", "int8", None]])
def test_products_may_take_along_what_follows_them(family, formats):
    dit = quantized(build(family), [BlockFormat(*formats)] * 3)
    apart = reference_tokens()
    taken = []

    def add_product(*arguments):
        taken.append("sum")
        apart.add_product(*arguments)

    def multiply_gated(*arguments):
        taken.append("gate")
        apart.multiply_gated(*arguments)

    yes = lambda format, device: True  # noqa: E731
    together = apart._replace(adds=yes, add_product=add_product, gates=yes, multiply_gated=multiply_gated)
    torch.testing.assert_close(
        FusedDiT(dit, together)(*inputs()), FusedDiT(dit, apart)(*inputs()), rtol=1e-3, atol=1e-3
    )
    assert ("sum" in taken) == (formats[1] is not None or formats[3] is not None)
    assert ("gate" in taken) == (formats[2] is not None and family == "3b")


def test_blocks_leave_the_model_they_come_from():
    dit = build("3b")
    quantized(dit, everything("int8"), frees=True)
    assert all(p.is_meta for p in dit.blocks.parameters())


def test_streamed_models_can_be_quantised():
    expected = FusedDiT(quantized(build("3b"), everything("int8")), reference_tokens())(*inputs())
    out = FusedDiT(quantized(streamed(build("3b")), everything("int8")), reference_tokens())(*inputs())
    assert torch.equal(out, expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
def test_kernels_give_the_reference_velocity(family):
    pytest.importorskip("triton")
    from ...kernels.conftest import INTERPRETS

    if not INTERPRETS:
        pytest.skip("runs in Triton's interpreter: TRITON_INTERPRET=1")
    dit = quantized(build(family), everything("int8"))
    expected = FusedDiT(dit, reference_tokens())(*inputs())
    assert relative_rms(FusedDiT(dit, triton_tokens())(*inputs()), expected) <= 1e-4


def test_formats_are_read_off_the_layers():
    formats = [BlockFormat(), BlockFormat(mlp_in="int8"), BlockFormat("int8", "int8")]
    dit = quantized(build("3b"), formats)
    assert [BlockFormat.of(block) for block in dit.blocks] == formats
    assert not any(isinstance(m, QuantizedLinear) for m in dit.blocks[0].modules())


@pytest.mark.parametrize("family", CONFIGS)
def test_every_matrix_of_a_block_belongs_to_a_product(family):
    for name, tensor in build(family).blocks[0].state_dict().items():
        if tensor.ndim == 2:
            assert matrix_of(name) in MATRICES, name
        elif "proj" not in name:
            assert matrix_of(name) is None, name


@pytest.mark.parametrize(
    ("name", "matrix"),
    [
        ("attn.proj_qkv.all.weight", "qkv"),
        ("attn.proj_out.vid.weight", "out"),
        ("mlp.all.proj_in.weight", "mlp_in"),
        ("mlp.txt.proj_in_gate.weight", "mlp_in"),
        ("mlp.all.proj_out.weight", "mlp_out"),
        ("ada.all.attn_in", None),
    ],
)
def test_names_belong_to_products(name, matrix):
    assert matrix_of(name) == matrix


def test_quantised_layers_apply_their_own_weights():
    weight = torch.randn(8, 16)
    layer = QuantizedLinear(*quantize_rows(weight, torch.int8), torch.randn(8))
    x = torch.randn(3, 16)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight.float() * layer.scale[:, None], layer.bias))


SAMPLE = Sample(torch.randn(1, 20, 20, 16, generator=torch.Generator().manual_seed(2)), torch.randn(3, 16))


def decode(latents):
    """Pixels that are the latents, where a VAE's would be."""
    return latents.movedim(-1, 0)[None, :3] * 0.2


def check(dit, limit):
    return check_dit(
        dit, "int8", lambda f: FusedDiT(quantized(dit, f), reference_tokens()), [SAMPLE], decode,
        min_psnr_db=limit,
    )  # fmt: skip


def test_nothing_is_kept_where_the_limit_holds():
    result, model = check(build("3b"), 20.0)
    assert result.holds
    assert result.kept == ()
    assert result.psnr_db == result.before_db
    assert [BlockFormat.of(block) for block in model.blocks] == everything("int8")


def test_outliers_in_one_matrix_are_found_and_named():
    dit = build("3b")
    with torch.no_grad():
        dit.blocks[1].mlp["all"].proj_out.weight[:, 5] *= 300
    found = max(matrix_errors(dit, "int8", SAMPLE), key=lambda e: e.error)
    assert (found.layer, found.matrix) == (1, "mlp_out")
    before = check(dit, 0.0)[0].before_db
    result, model = check(dit, before + 3)
    assert result.kept[0].name == "blocks.1 mlp_out"
    assert result.holds
    assert result.psnr_db > before
    assert BlockFormat.of(model.blocks[1]).mlp_out is None
    assert "blocks.1 mlp_out" in result.describe()


def test_a_limit_that_cannot_hold_keeps_everything_and_says_so():
    result, _ = check(build("7b"), 400.0)
    assert len(result.kept) == 12
    assert set(result.formats) == {BlockFormat()}
    assert result.psnr_db > result.before_db


@pytest.mark.parametrize("wrong", [0, 1])
def test_the_worst_of_several_samples_counts_and_is_looked_into(monkeypatch, wrong):
    samples = [SAMPLE, SAMPLE._replace(text=torch.zeros(3, 16))]
    asked = []

    def restored(model, sample):
        # 40 dB of the picture that `decode` makes of it.
        return torch.full((1, 2, 2, 16), 0.1 * (model == "rounded" and sample is samples[wrong]))

    def errors(dit, number, sample):
        asked.append(sample)
        return [MatrixError(0, matrix, 1.0) for matrix in MATRICES]

    monkeypatch.setattr(dit_check, "restored", restored)
    monkeypatch.setattr(dit_check, "matrix_errors", errors)
    dit = SimpleNamespace(config=SimpleNamespace(layers=1))
    result, _ = check_dit(dit, "int8", lambda _: "rounded", samples, decode, min_psnr_db=41.5)
    assert result.before_db == pytest.approx(40, abs=0.01)
    assert result.psnr_db == pytest.approx(40, abs=0.01)
    assert not result.holds
    assert len(result.kept) == 4
    assert [sample is samples[wrong] for sample in asked] == [True]


def test_what_is_compared_is_what_one_step_from_noise_gives():
    dit = build("3b")
    noise = latent_noise(0, range(1), (20, 20), device=torch.device("cpu"))
    geometry, conditioning = dit.geometry((1, 20, 20), len(SAMPLE.text)), dit.conditioning(SAMPLE.text, 1000.0)
    clean = sample_one(
        lambda noisy, _: dit.velocity(dit_input(noisy, SAMPLE.condition), geometry, conditioning).detach(), noise
    )
    torch.testing.assert_close(dit_check.restored(dit, SAMPLE), clean)


def test_matrices_are_judged_on_what_their_blocks_get_in_the_model():
    dit, seen = build("3b"), {}
    # Eight latent frames, whose windows of odd layers begin elsewhere.
    sample = Sample(torch.randn(8, 12, 12, 16, generator=torch.Generator().manual_seed(3)), SAMPLE.text)
    assert all(permutation is not None for permutation in dit.geometry((8, 12, 12), len(sample.text)).permutations)

    def inputs_of(run):
        handles = [
            block.register_forward_pre_hook(lambda _, given, layer=layer: seen.__setitem__(layer, given[:2]))
            for layer, block in enumerate(dit.blocks)
        ]
        run()
        for handle in handles:
            handle.remove()
        return dict(seen)

    in_model, judged = (inputs_of(run) for run in (lambda: dit_check.restored(dit, sample), lambda: matrix_errors(
        dit, "int8", sample)))  # fmt: skip
    assert in_model.keys() == judged.keys() == set(range(dit.config.layers))
    for layer, given in in_model.items():
        torch.testing.assert_close(judged[layer], given)


def test_a_check_that_keeps_the_harmless_matrices_is_noticed(monkeypatch):
    dit = build("3b")
    with torch.no_grad():
        dit.blocks[1].mlp["all"].proj_out.weight[:, 5] *= 300
    honest = check(dit, check(dit, 0.0)[0].before_db + 3)[0]
    turned = [MatrixError(e.layer, e.matrix, 1 / max(e.error, 1e-12)) for e in matrix_errors(dit, "int8", SAMPLE)]
    monkeypatch.setattr(dit_check, "matrix_errors", lambda *_: turned)
    assert len(check(dit, honest.min_psnr_db)[0].kept) > len(honest.kept)
