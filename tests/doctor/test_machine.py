"""What a machine has and what is used there, for machines that are not here."""

import subprocess
from dataclasses import replace

import pytest
import torch

from seedvr2_engine.doctor import machine as module
from seedvr2_engine.doctor.machine import inspect_machine, what_is_used
from seedvr2_engine.plan.gpus import find_gpu

HERE = replace(inspect_machine(torch.device("cpu")), cuda="13.0", triton="3.7.1", gpu=find_gpu("h200"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "the engine in fp8: "),
        ({"gpu": None}, "the plain model on the CPU: PyTorch sees no CUDA GPU"),
        ({"gpu": None, "cuda": "none"}, "the plain model on the CPU: this PyTorch is built without CUDA"),
        ({"triton": "none"}, "the plain model on the GPU: Triton is not installed (pip install triton"),
        ({"gpu": replace(find_gpu("h200"), sm="sm_75")}, "the plain model on the GPU: no kernels are compiled for"),
    ],
)
def test_what_is_used_and_why(change, said):
    assert what_is_used(replace(HERE, **change)).startswith(said)


@pytest.mark.parametrize(("device", "asked"), [("cuda", "--id=0"), ("cuda:3", "--id=3")])
def test_the_driver_is_asked_about_the_gpu_that_is_used(monkeypatch, device, asked):
    def run(command, **_):
        assert command[-1] == asked
        return subprocess.CompletedProcess(command, 0, "580.95.05\n", "")

    monkeypatch.setattr(module.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(module.subprocess, "run", run)
    assert module._driver_version(torch.device(device)) == "580.95.05"


@pytest.mark.parametrize(
    "failure",
    [subprocess.TimeoutExpired("nvidia-smi", 20), subprocess.CalledProcessError(9, "nvidia-smi"), PermissionError()],
    ids=lambda failure: type(failure).__name__,
)
def test_a_driver_that_does_not_answer_is_unknown(monkeypatch, failure):
    def run(*_, **__):
        raise failure

    monkeypatch.setattr(module.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(module.subprocess, "run", run)
    assert module._driver_version(torch.device("cuda")) == "unknown"
