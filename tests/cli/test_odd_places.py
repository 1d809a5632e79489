"""The command where little is as usual: no home, no standard streams, another encoding, names of bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from seedvr2_engine.video import SinkOptions, open_sink, open_source

from .conftest import TINY_VAE

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX")
ROOT = Path(__file__).parents[2]
WITHOUT_HOME = """
import os, pwd, sys
def unknown(*_): raise KeyError("no such user")
pwd.getpwuid = pwd.getpwnam = unknown
sys.argv[0] = "seedvr2"
from seedvr2_engine.cli import main
main()
"""


def run(*arguments, script=None, shell="", cwd=None, **environment):
    """The command in a process of its own; shell: what follows it in a shell, such as redirections."""
    head = [sys.executable, *(["-c", script] if script else ["-m", "seedvr2_engine"])]
    command = [*head, *map(str, arguments)]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    result = subprocess.run(command, capture_output=True, cwd=cwd, env=environment, timeout=100, check=False)
    assert b"Traceback" not in result.stderr, result.stderr.decode()
    return result


@posix
def test_a_user_without_a_name_or_a_home():
    result = run("models", script=WITHOUT_HOME)
    assert result.returncode == 0, result.stderr
    assert b"since none is known" in result.stdout
    result = run("download", "pos_emb.pt", script=WITHOUT_HOME)
    assert result.returncode == 2
    assert result.stderr.startswith(b"error: user cache: expected a home folder or XDG_CACHE_HOME")


@posix
def test_names_of_bytes_and_of_commands_on_an_ascii_terminal(dit, tmp_path):
    source = os.fsencode(tmp_path) + b"/caf\xe9 [1080p] \x1b[2J\xe2\x80\xae.mkv"
    with open_sink(tmp_path / "a.mkv", width=32, height=24, options=SinkOptions(codec="ffv1")) as sink:
        sink.write(torch.rand(3, 24, 32))
    os.rename(tmp_path / "a.mkv", source)  # noqa: PTH104
    target = os.fsencode(tmp_path) + b"/out\xff\xe9\n.mkv"
    odd = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    arguments = ["upscale", os.fsdecode(source), os.fsdecode(target), "--dit", dit, "--vae", TINY_VAE, "--scale", "1"]
    result = run(*arguments, "--color", "none", "--json", **odd)
    assert result.returncode == 0, result.stderr
    assert os.fsencode(json.loads(result.stdout)["output"]) == target
    assert b"\x1b[2J" not in result.stderr
    assert result.stderr.isascii()
    with open_source(os.fsdecode(target)) as clip:
        assert len(list(clip)) == 1
    result = run("download", os.fsdecode(os.path.basename(target)), **odd)  # noqa: PTH119  # Path would be text
    assert result.returncode == 2
    assert b"out\\xff\\xe9\\n.mkv" in result.stderr
    assert b"\x1b[2J" not in result.stderr
    assert result.stderr.isascii()


def test_commands_about_model_files_load_no_torch():
    """It takes seconds; the tests here and everybody who lists or fetches models would wait for it."""
    script = """
import sys
sys.argv[0] = "seedvr2"
from seedvr2_engine.cli import main
try:
    main()
finally:
    print("torch" in sys.modules)
"""
    for arguments in (["models"], ["download", "no such file"]):
        assert run(*arguments, script=script).stdout.endswith(b"False\n")


@posix
def test_closed_standard_streams_are_nobodys_files(dit, tmp_path):
    """The first file that is opened would get their numbers, and what libraries print."""
    with open_sink(tmp_path / "a.mkv", width=32, height=24, options=SinkOptions(codec="ffv1")) as sink:
        sink.write(torch.rand(3, 24, 32))
    arguments = ["upscale", "a.mkv", "b.mp4", "--codec", "h265", "--dit", dit, "--vae", TINY_VAE, "--scale", "1"]
    result = run(*arguments, shell="<&- >&- 2>&-", cwd=tmp_path)
    assert result.returncode == 0
    with open_source(tmp_path / "b.mp4") as clip:
        assert len(list(clip)) == 1


@posix
def test_a_working_folder_that_is_gone(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    result = run("info", "nano", shell="", cwd=None, script=(
        f"import os; os.chdir({str(folder)!r}); os.rmdir({str(folder)!r})\n"
        "from seedvr2_engine.cli import main\nmain()"
    ))  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.startswith(b"error: expected a working folder that is there")


def test_settings_of_little_use():
    odd = {"COLUMNS": "1", "LINES": "-1", "TERM": "dumb", "NO_COLOR": "1", "LANG": "", "TZ": "No/Such_Zone"}
    result = run("info", "nano", PYTHONOPTIMIZE="2", TMPDIR="/no/such/folder", **odd)
    assert result.returncode == 0, result.stderr
    assert b"4,207,616" in result.stdout


@posix
def test_ctrl_c_while_modules_are_imported(tmp_path):
    """It ends with one line, wherever it comes; the import is held up by a module in the way."""
    (tmp_path / "typer.py").write_text("import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "seedvr2_engine", "models"]
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, **pipes) as process:
        process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr == b"error: interrupted.\n"
