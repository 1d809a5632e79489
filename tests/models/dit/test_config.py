"""The transformer's tensors against the list in the public checkpoints."""

import math
import re
from itertools import product

import pytest
import torch

from seedvr2_engine.errors import InvalidArgumentError
from seedvr2_engine.models.dit.config import PUBLIC_3B, PUBLIC_7B, DiTConfig
from seedvr2_engine.models.dit.model import NaDiT

# Names as in a shell: {a,b} is each of a and b, {0..9} each number.
PUBLIC_TENSORS = {
    "3b": """
        vid_in.proj.weight 2560,132; vid_in.proj.bias 2560; txt_in.weight 2560,5120; txt_in.bias 2560
        emb_in.proj_in.weight 2560,256; emb_in.proj_hid.weight 2560,2560; emb_in.proj_{in,hid}.bias 2560
        emb_in.proj_out.weight 15360,2560; emb_in.proj_out.bias 15360
        blocks.{0..9}.attn.proj_qkv.{vid,txt}.weight 7680,2560; blocks.{10..31}.attn.proj_qkv.all.weight 7680,2560
        blocks.{0..9}.attn.proj_out.{vid,txt}.weight 2560,2560; blocks.{10..31}.attn.proj_out.all.weight 2560,2560
        blocks.{0..9}.attn.proj_out.{vid,txt}.bias 2560; blocks.{10..31}.attn.proj_out.all.bias 2560
        blocks.{0..9}.attn.norm_{q,k}.{vid,txt}.weight 128; blocks.{10..31}.attn.norm_{q,k}.all.weight 128
        blocks.{0..9}.mlp.{vid,txt}.{proj_in_gate,proj_in}.weight 6912,2560
        blocks.{10..31}.mlp.all.{proj_in_gate,proj_in}.weight 6912,2560
        blocks.{0..9}.mlp.{vid,txt}.proj_out.weight 2560,6912; blocks.{10..31}.mlp.all.proj_out.weight 2560,6912
        blocks.{0..9}.ada.{vid,txt}.{attn,mlp}_{shift,scale,gate} 2560
        blocks.{10..31}.ada.all.{attn,mlp}_{shift,scale,gate} 2560
        blocks.{0..31}.attn.rope.rope.freqs 21
        vid_out_norm.weight 2560; vid_out_ada.out_{shift,scale} 2560
        vid_out.proj.weight 64,2560; vid_out.proj.bias 64""",
    "7b": """
        vid_in.proj.weight 3072,132; vid_in.proj.bias 3072; txt_in.weight 3072,5120; txt_in.bias 3072
        emb_in.proj_in.weight 3072,256; emb_in.proj_hid.weight 3072,3072; emb_in.proj_{in,hid}.bias 3072
        emb_in.proj_out.weight 18432,3072; emb_in.proj_out.bias 18432
        blocks.{0..35}.attn.proj_qkv.{vid,txt}.weight 9216,3072
        blocks.{0..35}.attn.proj_out.{vid,txt}.weight 3072,3072; blocks.{0..35}.attn.proj_out.{vid,txt}.bias 3072
        blocks.{0..35}.attn.norm_{q,k}.{vid,txt}.weight 128; blocks.{0..35}.attn.rope.rope.freqs 10
        blocks.{0..35}.mlp.{vid,txt}.proj_in.weight 12288,3072; blocks.{0..35}.mlp.{vid,txt}.proj_in.bias 12288
        blocks.{0..35}.mlp.{vid,txt}.proj_out.weight 3072,12288; blocks.{0..35}.mlp.{vid,txt}.proj_out.bias 3072
        blocks.{0..35}.ada.{vid,txt}.{attn,mlp}_{shift,scale,gate} 3072
        vid_out.proj.weight 64,3072; vid_out.proj.bias 64""",
}


def expanded(pattern: str) -> list[str]:
    parts = []
    for part in re.split(r"\{(.*?)\}", pattern):
        first, dots, last = part.partition("..")
        parts.append([str(n) for n in range(int(first), int(last) + 1)] if dots and first else part.split(","))
    return ["".join(words) for words in product(*parts)]


def public_tensors(family: str) -> dict[str, tuple[int, ...]]:
    tensors = {}
    for entry in re.split(r"[;\n]", PUBLIC_TENSORS[family].strip()):
        pattern, shape = entry.split()
        for name in expanded(pattern):
            assert name not in tensors
            tensors[name] = tuple(map(int, shape.split(",")))
    return tensors


@pytest.mark.parametrize(
    ("config", "tensors", "parameters", "frequencies"),
    [(PUBLIC_3B, 635, 3_391_475_776, 672), (PUBLIC_7B, 1128, 8_239_607_872, 360)],
    ids=["3b", "7b"],
)
def test_the_public_models_have_the_public_tensors(config, tensors, parameters, frequencies):
    public = public_tensors(config.family)
    assert len(public) == tensors
    assert config.tensor_shapes() == public
    with torch.device("meta"):
        dit = NaDiT(config)
    assert {name: tuple(tensor.shape) for name, tensor in dit.state_dict().items()} == public
    assert sum(p.numel() for p in dit.parameters()) == parameters
    assert sum(math.prod(shape) for name, shape in public.items() if name.endswith("freqs")) == frequencies


@pytest.mark.parametrize("family", ["3b", "7b"])
@pytest.mark.parametrize("separate", [0, 1, 2])
def test_modules_have_exactly_the_listed_tensors(family, separate):
    config = DiTConfig(
        family, width=24, layers=3, separate_layers=separate, heads=3, head_width=32, mlp_width=40, text_width=16
    )
    with torch.device("meta"):
        dit = NaDiT(config)
    assert {name: tuple(tensor.shape) for name, tensor in dit.state_dict().items()} == config.tensor_shapes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 2, "separate_layers": 3}, "expected 0 to 2 of 2 layers, got 3"),
        ({"layers": 0, "separate_layers": 0}, "expected 0 to 0 of 0 layers"),
        ({"layers": 2, "separate_layers": 2}, "expected the last block of the 3b family to share"),
        ({"head_width": 7}, "expected an even number"),
    ],
)
def test_impossible_configurations_are_refused(arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        DiTConfig(**arguments)
