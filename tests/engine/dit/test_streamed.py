"""Packed and offloaded weights give the numbers of the plain model, and every block waits for its own."""

import json

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from seedvr2_engine import load_dit
from seedvr2_engine.engine.dit import block_images
from seedvr2_engine.engine.dit.block_images import BlockImage, ImagePrefetch, Weight
from seedvr2_engine.engine.dit.quantized import BlockFormat, QuantizedLinear, dequantize, quantize
from seedvr2_engine.engine.dit.streamed import StreamedDiT
from seedvr2_engine.engine.dit.weights import quantized
from seedvr2_engine.errors import CheckpointError
from seedvr2_engine.models.dit.config import DiTConfig
from seedvr2_engine.models.dit.model import NaDiT
from seedvr2_engine.models.dit.rope import rotary_frequencies
from seedvr2_engine.quant import int8, mxfp8, nvfp4

from ...models.dit.dit_cases import GOLDEN, largest_error

CONFIG = DiTConfig("3b", width=64, layers=3, separate_layers=1, heads=2, head_width=32, mlp_width=96, text_width=32)


def random_state(seed=0):
    generator = torch.manual_seed(seed)
    state = {name: torch.randn(s, generator=generator) / 8 for name, s in CONFIG.tensor_shapes().items()}
    return {n: rotary_frequencies(CONFIG) if n.endswith("freqs") else t for n, t in state.items()}


def write_gguf(path, state, kind=gguf.GGMLQuantizationType.Q8_0):
    writer = gguf.GGUFWriter(path, "seedvr2")
    for name, tensor in state.items():
        values = tensor.numpy()
        if name.startswith("blocks.") and tensor.ndim == 2:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


NOTES = {
    "int8": {"format": "int8_tensorwise"},
    "rotated": {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 16},
    "mxfp8": {"format": "mxfp8"},
    "nvfp4": {"format": "nvfp4"},
}


def quantised(state, kind):
    """A file's tensors: the blocks' matrices in ComfyUI's layout of this kind, the rest F16."""
    out = {}
    for name, tensor in state.items():
        layer = name.removesuffix(".weight")
        if not (name.startswith("blocks.") and tensor.ndim == 2):
            out[name] = tensor.half()
            continue
        out[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(NOTES[kind]).encode()), dtype=torch.uint8)
        if kind == "nvfp4":
            out[name], out[f"{layer}.weight_scale"], out[f"{layer}.weight_scale_2"] = nvfp4.quantize(tensor)
            out[f"{layer}.pre_quant_scale"] = torch.rand(tensor.shape[1]) + 0.5
        elif kind == "mxfp8":
            out[name], out[f"{layer}.weight_scale"] = mxfp8.quantize(tensor)
        else:
            out[name], scale = int8.quantize(tensor, rotation=NOTES[kind].get("convrot_groupsize", 0))
            out[f"{layer}.weight_scale"] = scale[:, None]
    return out


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dit")
    state = random_state()
    fp8, scaled = {}, {}
    for name, tensor in state.items():
        large = name.startswith("blocks.") and tensor.ndim == 2
        fp8[name] = tensor.to(torch.float8_e4m3fn) if large else tensor.half()
        scaled[name] = fp8[name]
        if large:
            scaled[f"{name.removesuffix('.weight')}.weight_scale"] = torch.rand(len(tensor)) + 0.5
    save_file(fp8, folder / "fp8.safetensors")
    save_file(scaled, folder / "scaled.safetensors")
    save_file({name: tensor.half() for name, tensor in state.items()}, folder / "plain.safetensors")
    for kind in NOTES:
        save_file(quantised(state, kind), folder / f"{kind}.safetensors")
    write_gguf(folder / "q8.gguf", state)
    write_gguf(folder / "q5.gguf", state, gguf.GGMLQuantizationType.Q5_1)
    return folder


def velocity(dit):
    generator = torch.manual_seed(5)
    return dit(torch.randn(3, 6, 8, 33, generator=generator), torch.randn(4, 32, generator=generator), 1000.0)


@pytest.mark.parametrize(
    "file",
    [
        *(f"{name}.safetensors" for name in ("plain", "fp8", "scaled", *NOTES)),
        "q8.gguf",
        "q5.gguf",
    ],
)
@pytest.mark.parametrize(("offload", "packed"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_numbers_as_the_plain_model(files, file, offload, packed, dtype):
    expected = velocity(load_dit(files / file, dtype=dtype, packed=False))
    dit = load_dit(files / file, dtype=dtype, offload=offload, packed=packed)
    assert isinstance(dit, StreamedDiT) == (offload or file != "plain.safetensors")
    for _ in range(2):
        assert torch.equal(velocity(dit), expected)


@pytest.mark.parametrize("family", ["3b", "7b"])
def test_offloaded_transformers_match_the_reference(family):
    dit = load_dit(GOLDEN / f"dit_tiny_{family}.safetensors", offload=True)
    assert max(largest_error(dit, case) for case in ("c0", "c2", "c4")) < 5e-5


def test_packed_weights_stay_packed(files):
    dense = load_dit(files / "q8.gguf", packed=False)
    packed = load_dit(files / "q8.gguf", packed=True)
    matrices = sum(p.nbytes for n, p in dense.named_parameters() if n.startswith("blocks.") and p.ndim == 2)
    images = sum(image.nbytes for image in packed._images)
    assert images == pytest.approx(matrices * 34 / 128, rel=0.02)
    assert all(p.is_meta for n, p in packed.named_parameters() if n.startswith("blocks.") and p.ndim == 2)
    largest = max(image.unpacked_bytes(torch.float32) for image in packed._images)
    assert packed.resident_bytes == images + largest
    assert load_dit(files / "q8.gguf", offload=True, packed=True).resident_bytes < packed.resident_bytes + largest


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize(
    ("file", "number"),
    [("fp8", "fp8"), ("scaled", "fp8"), ("int8", "int8")],
)
def test_a_file_in_the_format_of_the_products_is_used_as_it_is(files, file, number, offload):
    dit = load_dit(files / f"{file}.safetensors", packed=True, offload=offload)
    served = quantized(dit, [BlockFormat(number, number, number, None)] * 3, offload=offload)
    stored = load_file(files / f"{file}.safetensors")
    for layer, block in enumerate(served.loaded_blocks()):
        found = {name: m for name, m in block.named_modules() if isinstance(m, QuantizedLinear)}
        assert len(found) == (8 if layer == 0 else 4)  # The first has weights for video and for text.
        for name, module in found.items():
            path = f"blocks.{layer}.{name}"
            rows = len(module.scale)
            scale = stored.get(f"{path}.weight_scale", torch.ones(1)).flatten().expand(rows)
            assert torch.equal(module.weight.view(torch.uint8), stored[f"{path}.weight"].view(torch.uint8))
            assert torch.equal(module.scale, scale)
        assert not isinstance(block.mlp.of("vid").proj_out, QuantizedLinear)


@pytest.mark.parametrize("kind", ["mxfp8", "nvfp4"])
def test_a_file_with_block_scales_is_used_as_it_is(tmp_path, kind):
    tensors = {n: t for n, t in quantised(random_state(), kind).items() if not n.endswith("pre_quant_scale")}
    save_file(tensors, tmp_path / "dit.safetensors")
    dit = load_dit(tmp_path / "dit.safetensors", packed=True)
    served = quantized(dit, [BlockFormat.all_in(kind)] * 3)
    compared = 0
    for block, plain in zip(served.loaded_blocks(), dit.loaded_blocks(), strict=True):
        for name, layer in block.named_modules():
            if isinstance(layer, QuantizedLinear):
                compared += 1
                values = plain.get_submodule(name).weight
                torch.testing.assert_close(dequantize(layer.matrix), values, rtol=1e-6, atol=1e-9)
    assert compared == 10 + 5 + 5
    found = dit.as_stored(1, "mlp.all.proj_out.weight", kind)
    stored = tensors["blocks.1.mlp.all.proj_out.weight"].view(torch.uint8)
    assert torch.equal(found.data.view(torch.uint8), stored)


@pytest.mark.parametrize(
    ("file", "number"), [("rotated", "int8"), ("fp8", "int8"), ("int8", "fp8"), ("nvfp4", "nvfp4")]
)
def test_what_is_in_another_format_is_rounded_anew(files, file, number):
    dit = load_dit(files / f"{file}.safetensors", packed=True)
    assert dit.as_stored(0, "mlp.vid.proj_out.weight", number) is None
    served = quantized(dit, [BlockFormat(mlp_out=number)] * 3)
    # The generators keep a block's weights where they are.
    blocks, other_blocks = dit.loaded_blocks(), served.loaded_blocks()
    values = next(blocks).mlp["vid"].proj_out.weight
    layer = next(other_blocks).mlp["vid"].proj_out
    for actual, expected in zip(layer.matrix, quantize(values, number), strict=True):
        assert torch.equal(actual.view(torch.uint8), expected.view(torch.uint8))


def test_a_block_gives_its_weights_back_even_after_an_error(files):
    dit = load_dit(files / "q8.gguf", packed=True)
    blocks = dit.loaded_blocks()
    block = next(blocks)
    assert not block.mlp["vid"].proj_in.weight.is_meta
    blocks.close()
    assert block.mlp["vid"].proj_in.weight.is_meta


def test_damaged_blocks_are_refused(tmp_path):
    path = write_gguf(tmp_path / "bad.gguf", random_state())
    content = bytearray(path.read_bytes())
    place = next(t for t in gguf.GGUFReader(path).tensors if t.name == "blocks.1.mlp.all.proj_in.weight")
    content[place.data_offset : place.data_offset + 2] = b"\x00\x7c"  # an infinite scale
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"blocks\.1\.mlp\.all\.proj_in\.weight in .*: expected finite weights"):
        load_dit(path, packed=True)


class LateLane(block_images._Lane):
    """Copies that happen as late as they may, and buffers that are spoilt as early as they may."""

    def __init__(self):
        self.waiting = {}
        self.in_use = set()
        self.begun = []

    def begin_copy(self, slot, source, target):
        assert slot not in self.in_use, "copied over a block that is in use"
        target.fill_(255)
        self.waiting[slot] = (source, target)
        self.begun.append(slot)

    def await_copy(self, slot):
        source, target = self.waiting.pop(slot)
        target.copy_(source)
        self.in_use.add(slot)

    def end_use(self, slot):
        self.in_use.remove(slot)


def images_of(sizes):
    data = [torch.full((size,), index, dtype=torch.uint8) for index, size in enumerate(sizes)]
    return [BlockImage.of([Weight("w", (n.numel(),), n, "Q8_0")], torch.device("cpu"), pinned=True) for n in data]


def test_prefetch_is_one_ahead_and_never_in_the_way():
    lane = LateLane()
    images = images_of([300, 100, 700, 50, 256])
    prefetch = ImagePrefetch(images, torch.device("cpu"), lane)
    for _ in range(2):
        for index, data in enumerate(prefetch):
            assert set(data[:50].tolist()) == {index}
            # The next block is on its way while this one is in use.
            assert len(lane.waiting) == (1 if index < 4 else 0)
    assert prefetch.nbytes == 2 * 768
    assert lane.begun == [0, 1, 0, 1, 0] * 2


def test_a_copy_that_is_not_awaited_is_noticed(monkeypatch):
    monkeypatch.setattr(LateLane, "await_copy", lambda self, slot: self.in_use.add(slot))
    prefetch = ImagePrefetch(images_of([300, 100]), torch.device("cpu"), LateLane())
    assert set(next(iter(prefetch)).tolist()) == {255}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("file", [*(f"{name}.safetensors" for name in ("plain", "scaled", *NOTES)), "q8.gguf"])
@pytest.mark.parametrize("offload", [False, True])
def test_on_a_gpu(files, file, offload):
    expected = velocity(load_dit(files / file, device="cuda", dtype=torch.bfloat16, packed=False))
    dit = load_dit(files / file, device="cuda", dtype=torch.bfloat16, offload=offload)
    for _ in range(5):
        assert torch.equal(velocity(dit), expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_large_offloaded_blocks_on_a_gpu():
    """Blocks whose copies take longer than their work: a race would show."""
    config = DiTConfig("7b", width=1024, layers=6, separate_layers=6, heads=8, mlp_width=8192, text_width=64)
    generator = torch.manual_seed(0)
    images, state = [], {}
    for name, shape in config.tensor_shapes().items():
        state[name] = (torch.randn(shape, generator=generator) * 0.02).bfloat16().cuda()
    for layer in range(config.layers):
        block = f"blocks.{layer}."
        large = {n: t for n, t in state.items() if n.startswith(block) and t.ndim == 2}
        images.append(
            BlockImage.of(
                (Weight(n.removeprefix(block), tuple(t.shape), t.cpu()) for n, t in large.items()),
                torch.device("cuda"),
                pinned=True,
            )
        )
    with torch.device("meta"):
        plain = NaDiT(config)
    plain.load_state_dict(state, assign=True)
    streamed = StreamedDiT(config, images, offloaded=True)
    small = {n: t for n, t in state.items() if not (n.startswith("blocks.") and t.ndim == 2)}
    streamed.load_state_dict(small, strict=False, assign=True)
    video, text = torch.randn(2, 16, 16, 33).cuda(), torch.randn(5, 64).cuda()
    with torch.no_grad():
        expected = plain(video, text, 1000.0)
        for _ in range(10):
            assert torch.equal(streamed(video, text, 1000.0), expected)
