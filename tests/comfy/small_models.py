"""The tiny models as ComfyUI has them, and the nodes in one call each."""

import torch

TEXT = torch.randn(7, 64, generator=torch.manual_seed(1))


DIT_FILE = "small_dit.safetensors"


VAE_FILE = "small_vae.safetensors"


def clip(frames=6, height=20, width=28, channels=3):
    return torch.rand(frames, height, width, channels, generator=torch.manual_seed(2))


def dit_config(nodes, **inputs):
    return nodes["SeedVR2LoadDiTModel"].execute(**{"model": DIT_FILE, "device": "cpu", **inputs}).args[0]


def vae_config(nodes, **inputs):
    return nodes["SeedVR2LoadVAEModel"].execute(**{"model": VAE_FILE, "device": "cpu", **inputs}).args[0]


def upscale(nodes, image, dit=None, vae=None, **inputs):
    inputs = {"seed": 3, "resolution": 32, "color_correction": "wavelet", **inputs}
    node = nodes["SeedVR2VideoUpscaler"]
    return node.execute(image=image, dit=dit or dit_config(nodes), vae=vae or vae_config(nodes), **inputs).args[0]
