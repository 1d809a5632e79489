"""Known public model files: repository, pinned revision, size and SHA-256.

Names, repositories and SHA-256 follow the registry of numz/ComfyUI-SeedVR2_VideoUpscaler; sizes, commits, and
the rows of Comfy-Org and ByteDance-Seed are those that public projects state which pin the same files; where nobody
states a size it follows from the layout, whose rules give every stated one but that of Comfy-Org's 3B in FP16, which is
therefore not in the table. The SHA-256 is the pin that counts: a file of other content is never accepted, whatever its
revision says.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

from ...errors import ModelFileError

ModelKind = Literal["vae", "dit", "text"]


@dataclass(frozen=True)
class ModelFile:
    """One public file, exact to the byte."""

    name: str
    """File name on this machine; no folders."""
    kind: ModelKind
    """`vae`, `dit` (diffusion transformer) or `text` (precomputed text embedding)."""
    repository: str
    """Hugging Face model repository, `owner/name`."""
    path: str
    """Path inside the repository, with `/`."""
    revision: str | None
    """Commit of the repository; None, where no source states one, is `main`, pinned by the SHA-256 alone."""
    size_bytes: int
    """Exact size."""
    sha256: str
    """64 lower-case hexadecimal digits."""
    description: str
    """One line for a list of models."""

    @property
    def is_native(self) -> bool:
        """Whether it is a file of ComfyUI's own SeedVR2, which looks for it under this name."""
        return self.repository == _COMFY_ORG[0]


_NUMZ = ("numz/SeedVR2_comfyUI", "09ced71023636e9bc8cdf9cdecfb2625d1e691e8")
_AINVFX = ("AInVFX/SeedVR2_comfyUI", "ac66d6d98fa49975d893b58c55bff7677191c862")
_COMFY_ORG = ("Comfy-Org/SeedVR2", "df48879708206a403d2a61acd55578c2e80fd233")
_BYTEDANCE = ("ByteDance-Seed/SeedVR2-3B", "37255ff8cccfb01071b87f635a5948ca8d53117c")


def _file(
    source: tuple[str, str], kind: ModelKind, path: str, size_bytes: int, sha256: str, description: str
) -> ModelFile:
    """A table row; the local name is the last part of `path`."""
    repository, revision = source
    name = path.rpartition("/")[2]
    return ModelFile(name, kind, repository, path, revision, size_bytes, sha256, description)


def _native(name: str, size_bytes: int, sha256: str, description: str) -> ModelFile:
    """A transformer in the layout of ComfyUI's own SeedVR2, which has its text in it."""
    path = f"diffusion_models/seedvr2_{name}.safetensors"
    return _file(_COMFY_ORG, "dit", path, size_bytes, sha256, f"{description}; of ComfyUI's own SeedVR2")


MODEL_FILES: tuple[ModelFile, ...] = (
    _file(
        _NUMZ,
        "vae",
        "ema_vae_fp16.safetensors",
        501_324_814,
        "20678548f420d98d26f11442d3528f8b8c94e57ee046ef93dbb7633da8612ca1",
        "VAE, FP16; the one VAE that every SeedVR2 transformer uses",
    ),
    _file(
        _COMFY_ORG,
        "vae",
        "vae/seedvr2_ema_vae_fp16.safetensors",
        501_324_814,
        "20678548f420d98d26f11442d3528f8b8c94e57ee046ef93dbb7633da8612ca1",
        "VAE, FP16; the same bytes under the name that ComfyUI's own workflows use",
    ),
    _file(
        _NUMZ,
        "dit",
        "seedvr2_ema_3b_fp16.safetensors",
        6_783_018_808,
        "2fd0e03a3dad24e07086750360727ca437de4ecd456f769856e960ae93e2b304",
        "3B transformer, FP16",
    ),
    _file(
        _NUMZ,
        "dit",
        "seedvr2_ema_3b_fp8_e4m3fn.safetensors",
        3_391_544_696,
        "3bf1e43ebedd570e7e7a0b1b60d6a02e105978f505c8128a241cde99a8240cff",
        "3B transformer, FP8 E4M3 without scales",
    ),
    _file(
        _AINVFX,
        "dit",
        "seedvr2_ema_3b-Q8_0.gguf",
        3_660_613_984,
        "be0d60083a2051a265eb4b77f28edf494e6db67ffc250216f32b72292e5cbd96",
        "3B transformer, GGUF Q8_0",
    ),
    _file(
        _AINVFX,
        "dit",
        "seedvr2_ema_3b-Q4_K_M.gguf",
        1_995_344_224,
        "e665e3909de1a8c88a69c609bca9d43ff5a134647face2ce4497640cc3597f0e",
        "3B transformer, GGUF Q4_K_M",
    ),
    _file(
        _NUMZ,
        "dit",
        "seedvr2_ema_7b_fp16.safetensors",
        16_479_334_424,
        "7b8241aa957606ab6cfb66edabc96d43234f9819c5392b44d2492d9f0b0bbe4a",
        "7B transformer, FP16",
    ),
    _file(
        _AINVFX,
        "dit",
        "seedvr2_ema_7b_fp8_e4m3fn_mixed_block35_fp16.safetensors",
        8_466_296_338,
        "3d68b5ec0b295ae28092e355c8cad870edd00b817b26587d0cb8f9dd2df19bb2",
        "7B transformer, FP8 E4M3 without scales, last block FP16",
    ),
    _file(
        _AINVFX,
        "dit",
        "seedvr2_ema_7b-Q4_K_M.gguf",
        4_758_306_592,
        "db9cb2ad90ebd40d2e8c29da2b3fc6fd03ba87cd58cbadceccca13ad27162789",
        "7B transformer, GGUF Q4_K_M",
    ),
    _file(
        _NUMZ,
        "dit",
        "seedvr2_ema_7b_sharp_fp16.safetensors",
        16_479_334_424,
        "20a93e01ff24beaeebc5de4e4e5be924359606c356c9c51509fba245bd2d77dd",
        "7B sharp transformer, FP16",
    ),
    _file(
        _AINVFX,
        "dit",
        "seedvr2_ema_7b_sharp_fp8_e4m3fn_mixed_block35_fp16.safetensors",
        8_466_296_338,
        "0d2c5b8be0fda94351149c5115da26aef4f4932a7a2a928c6f184dda9186e0be",
        "7B sharp transformer, FP8 E4M3 without scales, last block FP16",
    ),
    _file(
        _AINVFX,
        "dit",
        "seedvr2_ema_7b_sharp-Q4_K_M.gguf",
        4_758_306_592,
        "7aed800ac4eb8e0d18569a954c0ff35f5a1caa3ed5d920e66cc31405f75b6e69",
        "7B sharp transformer, GGUF Q4_K_M",
    ),
    _native(
        "3b_fp8_e4m3fn",
        3_392_794_232,
        "a0226eaa2c3e6f47ae5ce83225120f16479da890ced1a3bc32b1a14619787914",
        "3B transformer, FP8 E4M3 without scales",
    ),
    _native(
        "3b_int8_convrot",
        3_458_259_704,
        "c3dec8bcc5916843a8a858572970597462e1f2dc598d6dfd818f6cd40f53a157",
        "3B transformer, INT8, rotated",
    ),
    _native(
        "3b_mxfp8",
        3_557_857_550,
        "768623e3bfb1752b4d0668782751b5fead58b1bcb153f0b5e03a423095630297",
        "3B transformer, MXFP8",
    ),
    _native(
        "3b_nvfp4",
        1_996_687_726,
        "c8dea38b04d43295621726e2cd371c0d2d001006169c113aea17950f2cb2e295",
        "3B transformer, NVFP4",
    ),
    _native(
        "7b_fp16",
        16_480_583_960,
        "2742ca6fee63bc5cc1773f426dd4b07b78cad27f51c9ea5cd42b035e6b592252",
        "7B transformer, FP16",
    ),
    _native(
        "7b_fp8_e4m3fn",
        8_240_979_248,
        "5065e77d647dd553d9090a81e20d6de590d931a61df79d785e008433926ee418",
        "7B transformer, FP8 E4M3 without scales",
    ),
    _native(
        "7b_int8_convrot",
        8_334_897_976,
        "5aa0d25fc9d35e449b659d0c9a5dcb22e2a4fa04032101b95a39da42b32c1be6",
        "7B transformer, INT8, rotated",
    ),
    _native(
        "7b_mxfp8",
        8_581_725_960,
        "b40804f47910d96c5089c728cc7ec8b57b956750eabb6397dc4e6e697477263d",
        "7B transformer, MXFP8",
    ),
    _native(
        "7b_nvfp4",
        4_759_694_792,
        "cc4af1a7bd5377066496f393555478323e806fa21163bdbe3409451aface9b93",
        "7B transformer, NVFP4",
    ),
    _native(
        "7b_sharp_fp16",
        16_480_583_960,
        "70823bca54b9c24eeb56e1c452697c7c2a430867e58db0e376c6e260f3a4489d",
        "7B sharp transformer, FP16",
    ),
    _native(
        "7b_sharp_fp8_e4m3fn",
        8_240_979_248,
        "7602c5f70868d28e7730035e4e9d745b05d661c8f0a7eb758e63f9c8603596ef",
        "7B sharp transformer, FP8 E4M3 without scales",
    ),
    _native(
        "7b_sharp_int8_convrot",
        8_334_897_976,
        "db48be2f1cc7e36b01a2aa529810f5d9c6a971edd29be225cf1b0eb18d51c366",
        "7B sharp transformer, INT8, rotated",
    ),
    _native(
        "7b_sharp_mxfp8",
        8_581_725_960,
        "0d621ec1561a11ca9b5f432ec6d4e09b263b61f4b83b0280552c8b4add030ec3",
        "7B sharp transformer, MXFP8",
    ),
    _native(
        "7b_sharp_nvfp4",
        4_759_694_792,
        "80d57af7722f5a5bd4c01d2ab2688f2bf05e552e59d3d3287257de709db10397",
        "7B sharp transformer, NVFP4",
    ),
    _file(
        _BYTEDANCE,
        "text",
        "pos_emb.pt",
        595_100,
        "fa07a14844314772266b66c3b95deb0027696d8fe7065721263db5176f45d799",
        "text embedding of the positive prompt, (58, 5120) BF16 in a torch pickle",
    ),
)


def find(name: str) -> ModelFile:
    """The known file of this exact name; any other raises `ModelFileError` naming the closest ones."""
    for model in MODEL_FILES:
        if model.name == name:
            return model
    names = [model.name for model in MODEL_FILES]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    closest = f"the closest are {', '.join(close)}; " if close else ""
    raise ModelFileError(f"{name}: not a known model file; {closest}`seedvr2 models` lists them all.")
