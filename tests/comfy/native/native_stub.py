"""ComfyUI's own SeedVR2 VAE as its sources describe it: the object, and a model in it that is plain and slow."""

import math

import torch

from ..stub import ModelPatcher

SCALE = 0.9152


class NativeModel:
    """`VideoAutoencoderKLWrapper`: unscaled means out, scaled latents in, tiles blended with cosine ramps."""

    comfy_has_chunked_io = True

    def __init__(self, plain):
        self.plain = plain
        self.calls = []

    def state_dict(self):
        return self.plain.state_dict()

    def encode(self, x, device=None):
        self.calls.append("encode")
        frames = 4 * ((x.shape[2] - 1) // 4) + 1
        return self.plain.encode(x[:, :, :frames]).squeeze(2)

    def comfy_format_encoded(self, samples):
        self.calls.append("format")
        return (samples.unsqueeze(2) if samples.ndim == 4 else samples) * SCALE

    def decode_output_shape(self, shape):
        if len(shape) == 4:
            shape = (shape[0], 16, shape[1] // 16, *shape[2:])
        return (shape[0], 3, 4 * shape[2] - 3, 8 * shape[3], 8 * shape[4])

    def decode(self, z, output_buffer=None):
        self.calls.append("decode")
        size = self.decode_output_shape(z.shape)
        pictures = self.plain.decode(z.reshape(len(z), 16, -1, *z.shape[-2:]) / SCALE)
        assert pictures.shape == size
        return pictures if output_buffer is None else output_buffer.copy_(pictures)

    def encode_tiled(self, x, tile_x=512, tile_y=512, overlap=64, tile_t=None, overlap_t=None):
        return self._tiled(x, tile_y, tile_x, overlap, 8, lambda part: self.plain.encode(part), lambda n: n // 8)

    def decode_tiled(self, z, tile_x=32, tile_y=32, overlap=8, tile_t=None, overlap_t=None):
        return self._tiled(z / SCALE, tile_y, tile_x, overlap, 1, lambda part: self.plain.decode(part), lambda n: 8 * n)

    def _tiled(self, x, tile_y, tile_x, overlap, cell, run, scaled):
        rows = self._starts(x.shape[-2], tile_y, min(overlap, tile_y - cell))
        columns = self._starts(x.shape[-1], tile_x, min(overlap, tile_x - cell))
        total, weights = 0, 0
        for top in rows:
            for left in columns:
                out = run(x[..., top : top + tile_y, left : left + tile_x])
                weight = self._ramp(out.shape[-2], scaled(overlap), top, x.shape[-2] - top - tile_y)[:, None]
                weight = weight * self._ramp(out.shape[-1], scaled(overlap), left, x.shape[-1] - left - tile_x)
                place = torch.zeros(*out.shape[:3], scaled(x.shape[-2]), scaled(x.shape[-1]))
                corner = scaled(top), scaled(left)
                into = tuple(slice(a, a + n) for a, n in zip(corner, out.shape[-2:], strict=True))
                place[(..., *into)] = out * weight
                mask = torch.zeros(place.shape[-2:])
                mask[into] = weight
                total, weights = total + place, weights + mask
        return total / weights

    @staticmethod
    def _starts(extent, tile, overlap):
        starts = range(0, extent, tile - overlap)
        return [start for start in starts if start == 0 or min(start + tile, extent) - start > overlap]

    @staticmethod
    def _ramp(length, overlap, before, after):
        """No ramp is longer than half the tile; ends at the border of the frame have none."""
        faded = min(overlap, length // 2)
        rise = [0.5 - 0.5 * math.cos(math.pi * i / max(1, faded - 1)) for i in range(faded)]
        window = [1.0] * length
        for i in range(faded):
            if before > 0:
                window[i] = rise[i]
            if after > 0:
                window[length - faded + i] = 1 - rise[i]
        return torch.tensor(window)


class NativeVAE:
    """`comfy.sd.VAE` as far as nodes call it, set up for SeedVR2."""

    def __init__(self, model, management, dtype=torch.float32):
        self.first_stage_model = model
        self.patcher = ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
        self.device = self.output_device = torch.device("cpu")
        self.vae_dtype = dtype
        self.format_encoded = model.comfy_format_encoded
        self.memory_used_encode = self.memory_used_decode = lambda shape, dtype: 1
        self.size = 123
        self.management = management

    def encode(self, pixels):
        x = self._pixels(pixels)
        need = self.memory_used_encode(x.shape, self.vae_dtype)
        self.management.load_models_gpu([self.patcher], memory_required=need)
        return self.format_encoded(self.first_stage_model.encode(x, device=self.device).to(self.output_device).float())

    def decode(self, samples):
        need = self.memory_used_decode(samples.shape, self.vae_dtype)
        self.management.load_models_gpu([self.patcher], memory_required=need)
        out = torch.full(self.first_stage_model.decode_output_shape(samples.shape), math.nan)
        self.first_stage_model.decode(samples.to(self.vae_dtype), output_buffer=out)
        return self._shown(out)

    def encode_tiled(self, pixels, tile, overlap):
        x = self._pixels(pixels)
        return self.format_encoded(self.first_stage_model.encode_tiled(x, tile_x=tile, tile_y=tile, overlap=overlap))

    def decode_tiled(self, samples, tile, overlap):
        z = samples.to(self.vae_dtype)
        return self._shown(self.first_stage_model.decode_tiled(z, tile_x=tile, tile_y=tile, overlap=overlap))

    def get_sd(self):
        return self.first_stage_model.state_dict()

    def _pixels(self, pixels):
        x = pixels[..., :3].movedim(-1, 1)
        x = x.movedim(1, 0).unsqueeze(0) if x.ndim == 4 else x
        return (x * 2 - 1).to(self.vae_dtype)

    @staticmethod
    def _shown(out):
        return out.float().add(1).div(2).clamp(0, 1).movedim(1, -1)
