"""The small VAE, healthy and with a planted outlier, and a clip to measure on."""

import pytest

from seedvr2_engine.engine.accuracy import sensitivity
from seedvr2_engine.engine.accuracy.calibrate import activation_maxima
from seedvr2_engine.engine.accuracy.sample_clips import sample_scene
from seedvr2_engine.engine.vae import engine as engine_module
from seedvr2_engine.loading import load_vae


@pytest.fixture(scope="session")
def nano():
    return load_vae("nano")


@pytest.fixture(scope="session")
def nano_maxima(nano):
    return activation_maxima(nano)


@pytest.fixture
def calibrated_once(monkeypatch, nano_maxima):
    """Calibrating takes longer than all the rest."""
    monkeypatch.setattr(sensitivity, "activation_maxima", lambda _vae: nano_maxima)
    monkeypatch.setattr(engine_module, "calibrate_on", lambda _vae, _device: nano_maxima)


@pytest.fixture
def outlier():
    """One norm channel far above the others: a scale that suits it leaves nothing of them."""
    vae = load_vae("nano")
    resnet = vae.decoder.up_blocks[2].resnets[1]
    resnet.norm1.weight[3] *= 3e6
    resnet.norm1.bias[3] *= 3e6
    resnet.conv1.weight[:, 3] /= 3e6
    return vae


@pytest.fixture(scope="session")
def clip():
    return sample_scene(24)[:, :, :1]
