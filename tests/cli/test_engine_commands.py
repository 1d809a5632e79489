"""`seedvr2 plan`, `doctor` and `bench` on a machine without a GPU."""

import json

import pytest
import torch
import typer

from seedvr2_engine.bench.cases import Case
from seedvr2_engine.bench.results import Results
from seedvr2_engine.bench.vae import Row
from seedvr2_engine.cli.commands import bench as bench_command
from seedvr2_engine.cli.commands import doctor as doctor_command
from seedvr2_engine.doctor.kernel_checks import Check
from seedvr2_engine.doctor.machine import DoctorReport, inspect_machine
from seedvr2_engine.plan.compile import LIBRARY_BYTES

from .test_commands import refused, seedvr2

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
SIZE = ("--width", "1920", "--height", "1080")


def test_plan_for_a_gpu_that_is_not_here():
    result = seedvr2("plan", "--gpu", "rtx5070ti", *SIZE, "--frames", "81")
    assert result.exit_code == 0, result.stderr
    assert "RTX 5070 Ti, sm_120, 70 SMs" in result.stdout
    assert "decode 1920x1080, 81 frames" in result.stdout
    assert "mxfp8" in result.stdout
    assert "whole frames, exact" in result.stdout
    assert "\nup_blocks.2.upsamplers.0 " in result.stdout
    assert "its output is the picture itself" in result.stdout
    assert "A roofline, not a measurement" in result.stdout


def test_plan_as_json():
    result = seedvr2("plan", "--gpu", "h200", *SIZE, "--frames", "20", "--precision", "int8", "--encode", "--json")
    facts = json.loads(result.stdout)
    assert facts["gpu"]["sm"] == "sm_90"
    assert facts["precision"] == {"format": "int8", "reason": "asked for"}
    assert facts["plan"]["shape"] == {"part": "encode", "height_px": 1080, "width_px": 1920, "frames": 21}
    memory = facts["plan"]["memory"]
    assert facts["peak_bytes"] == memory["weights"] + memory["rings"] + memory["arena"] + memory["result"]
    steps = len(facts["plan"]["steady"]["operations"])
    assert len(facts["roofline"]["steady"]) == steps
    assert facts["roofline"]["clip_ms"] > facts["roofline"]["first_ms"]


def test_plan_of_the_transformer():
    command = ["plan", "--gpu", "rtx5070ti", *SIZE, "--frames", "20", "--part", "transformer"]
    result = seedvr2(*command)
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "transformer 3b, 1920x1080, 20 frames, 48960 tokens" in said
    assert "not a measurement" in said
    assert "assumed, not measured" in said
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines if line[1:3] in (["3.46", "GB"], ["6.78", "GB"])][-1] == "bf16"
    whole = json.loads(seedvr2(*command, "--dit", "7b", "--json").stdout)
    one = json.loads(seedvr2(*command, "--dit", "7b", "--precision", "int8", "--json").stdout)
    assert one["formats"] == [found for found in whole["formats"] if found["format"] == "int8"]
    assert whole["transformer"]["family"] == "7b"
    assert whole["chunk"]["frames"] == 6
    for found in whole["formats"]:
        assert found["offloaded_bytes"] < found["weights_bytes"] + found["activations_bytes"]
        assert found["offloaded_ms"] >= found["time"]["ms"] > 0


def test_plan_in_little_memory_uses_the_host_or_tiles():
    host = seedvr2("plan", "--gpu", "rtx5070ti", *SIZE, "--vram-gb", "8", "--json")
    assert json.loads(host.stdout)["plan"]["memory"]["host"] > 0
    tiles = seedvr2("plan", "--gpu", "rtx5070ti", *SIZE, "--frames", "5", "--vram-gb", "1.8")
    assert "approximate" in tiles.stdout
    nothing = seedvr2("plan", "--gpu", "rtx5070ti", *SIZE, "--vram-gb", "0.1")
    assert "cannot run" in nothing.stderr
    assert "conv_out" not in nothing.stdout


def test_plan_with_the_widths_of_a_file():
    whole, nano = (
        json.loads(seedvr2("plan", "--gpu", "h200", *SIZE, "--json", *extra).stdout)["plan"]["memory"]["weights"]
        for extra in ((), ("--vae", "nano"))
    )
    assert nano - LIBRARY_BYTES < (whole - LIBRARY_BYTES) / 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gpu", "rtx5075ti", *SIZE], "RTX 5070 Ti"),
        (["--gpu", "rtx3090", *SIZE, "--precision", "fp8"], "offers int8, fp16, bf16"),
        (["--gpu", "h200", *SIZE, "--precision", "fp4"], "expected one of auto"),
        (["--gpu", "h200", *SIZE, "--precision", "reference"], "plain model"),
        (["--gpu", "h200", "--width", "0", "--height", "8"], "positive sizes"),
        (["--gpu", "h200", *SIZE, "--vram-gb", "1000"], "vram_gb"),
        (["--gpu", "h200", *SIZE, "--part", "all"], "expected decode, encode or transformer"),
        (["--gpu", "h200", *SIZE, "--part", "decode", "--encode"], "no other beside --encode"),
        (["--gpu", "h200", *SIZE, "--part", "transformer", "--precision", "fp4"], "computes fp8, int8, bf16"),
        (["--gpu", "h200", *SIZE, "--part", "transformer", "--dit", "nowhere.gguf"], "nowhere.gguf"),
        (["--gpu", "h200", *SIZE, "--vae", "nowhere.gguf"], "nowhere.gguf"),
    ],
)
def test_plan_refuses(arguments, words):
    assert words in refused("plan", *arguments)


@needs_no_gpu
def test_plan_without_a_gpu_wants_a_name():
    assert "name one, such as --gpu rtx5070ti" in refused("plan", *SIZE)


@needs_no_gpu
def test_doctor_without_a_gpu_says_so_and_lists_versions(tmp_path):
    report = tmp_path / "findings.json"
    result = seedvr2("doctor", "--report", report)
    assert result.exit_code == 0, result.stderr
    assert "none that PyTorch can use" in result.stdout
    assert torch.__version__ in result.stdout
    assert "the plain model on the CPU" in result.stdout
    assert "were not checked" in result.stdout
    facts = json.loads(report.read_text())
    assert facts["checks"] == []
    assert facts["machine"]["gpu"] is None
    assert "exists already" in refused("doctor", "--report", report)


@needs_no_gpu
def test_doctor_warms_nothing_without_a_gpu():
    result = seedvr2("doctor", "--warm", "--size", "1280x720")
    assert result.exit_code == 0, result.stderr
    assert "Nothing was compiled" in result.stdout
    assert "expected width and height such as 1280x720, got '720p'" in refused("doctor", "--warm", "--size", "720p")
    assert "expected --warm beside it" in refused("doctor", "--size", "1280x720")


def test_kernels_are_refused_where_they_are_none(tmp_path):
    assert "cannot be read" in refused("kernels", "check", tmp_path)
    assert "expected one of sm_80" in refused("kernels", "build", "--arch", "sm_70", "--out", tmp_path / "new")
    assert "expected one of color" in refused("kernels", "build", "--arch", "sm_90", "--out", tmp_path, "--part", "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "1280x720x20"], "4n+1 frames"),
        (["--size", "big"], "WIDTHxHEIGHTxFRAMES"),
        (["--device", "cpu"], "expected a CUDA GPU"),
        pytest.param([], "seedvr2 plan --gpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")),
    ],
)
def test_bench_refuses(arguments, words):
    assert words in refused("bench", "vae", *arguments)


RIGHT = Check("decoder.conv_in", "conv3d", "fp16", "tile 8x16", 1e-4, "")
WRONG = Check("decoder.conv_out", "fold", "fp16", "", 0.5, "relative error 5.0e-01")


def test_doctor_lists_every_kernel_and_ends_well(capsys):
    machine = inspect_machine(torch.device("cpu"))
    doctor_command._print_checks((RIGHT, WRONG))
    table = capsys.readouterr().out
    assert "tile 8x16" in table
    assert "1.0e-04" in table
    doctor_command._conclude(DoctorReport(machine, "", (RIGHT,), 1.0))
    assert "All 1 kernels are right" in capsys.readouterr().out


def test_doctor_names_what_is_wrong(capsys):
    machine = inspect_machine(torch.device("cpu"))
    with pytest.raises(typer.Exit) as ending:
        doctor_command._conclude(DoctorReport(machine, "", (RIGHT, WRONG), 1.0))
    assert ending.value.exit_code == 1
    said = capsys.readouterr().err
    assert "1 of 2 kernels are wrong: fold fp16 (decoder.conv_out): relative error 5.0e-01" in said


def test_the_table_of_a_benchmark(capsys):
    case = Case("decode", 1280, 720, 21)
    row = Row(
        case, "fp8", "", 0.02, 51.25, 300.0, 4.0, 5, 70.0, 1100.0, 0.75, int(5.6e9), int(5.5e9), "whole frames"
    )  # fmt: skip
    machine = inspect_machine(torch.device("cpu"))
    rows = (row, Row(case, "int8", "decoder.conv_in is wrong"))
    bench_command._print(Results(machine, "2026-01-01T00:00:00Z", "abc", "random", {"fp8": 1459.0}, rows))
    said = capsys.readouterr().out
    for words in (
        "decode 1280x720x21",
        "300.0",
        "70.0",
        "1100",
        "75%",
        "5.60",
        "5.50",
        "51.2",
        "whole frames",
        "fp8 1459",
    ):
        assert words in said
    assert "decoder.conv_in is wrong" in said
