"""Names and texts from outside on a terminal: shown as they are, and never obeyed."""

import io
import logging

import pytest
from rich.console import Console
from rich.table import Table

from seedvr2_engine.cli.terminal import console, progress
from seedvr2_engine.cli.terminal.console import SafeConsole
from seedvr2_engine.cli.terminal.shown import ShownFormatter, shown
from seedvr2_engine.cli.upscaling.preview import readable_time
from seedvr2_engine.pipeline.upscaler import Progress

HOSTILE = "a\x1b[2J\x1b]0;owned\x07\r\n\x9b31m\u202egpj.\u2066\u2028\udcff [bold]x[/bold] :dog: [/].mp4"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("film [1080p] :dog:.mp4", "film [1080p] :dog:.mp4"),
        (
            "\u00fcber \u6587\u5b57 \U0001f468\u200d\U0001f469.mp4",
            "\u00fcber \u6587\u5b57 \U0001f468\u200d\U0001f469.mp4",
        ),
        ("a\x1b[2J", "a\\x1b[2J"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("caf\udce9.mp4", "caf\\xe9.mp4"),
        ("\ud800", "\\ud800"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text, safe):
    assert shown(text) == safe
    assert shown(safe) == safe


def printed(monkeypatch, width=400):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict", write_through=True)
    made = SafeConsole(file=stream, force_terminal=True, color_system=None, width=width)
    for module in (console, progress):
        monkeypatch.setattr(module, "err", made)
    return made, lambda: stream.buffer.getvalue().decode()


def check(text):
    assert not any(mark in text for mark in ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\u202e", "\u2028")), repr(text)


def test_sentences_tables_and_lines(monkeypatch):
    made, text = printed(monkeypatch)
    console.fail(f"{HOSTILE}: expected", 2)
    console.warn(HOSTILE)
    made.print(HOSTILE)
    table = Table(HOSTILE)
    table.add_row(HOSTILE)
    made.print(table)
    check(text())
    # Markup and emoji codes are part of the name.
    assert text().count("[bold]x[/bold] :dog: [/]") == 5
    assert text().splitlines()[0].startswith("error: a\\x1b[2J")


@pytest.mark.parametrize("width", [1, 8, 80, 400])
def test_the_bar_shows_the_name_as_it_is(monkeypatch, width):
    _, text = printed(monkeypatch, width)
    for name in (HOSTILE, "[1080p].mp4", "[/].mp4"):
        with progress.UpscaleBar(name, 3) as bar:
            bar.step(Progress("transform", 2))
            bar.written(2)
    check(text())
    if width == 400:
        assert "[1080p].mp4" in text()


def test_frames_that_pass_a_stage_twice_move_no_bar_back(monkeypatch):
    printed(monkeypatch)
    with progress.UpscaleBar("a.mp4", 8) as bar:
        (task,) = bar._bar.tasks
        bar.step(Progress("encode", 4))
        assert task.completed == pytest.approx(0.2 * 4)
        bar.step(Progress("encode", 3))
        assert task.completed == pytest.approx(0.2 * 4)
        for stage in ("encode", "transform", "decode", "color"):
            bar.step(Progress(stage, 99))
        assert task.completed == pytest.approx(8)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (24 << 30, "25.77 GB"), (10**13, "10000.00 GB")],
)
def test_sizes_are_decimal(size_bytes, text):
    assert console.readable_size(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "a second or less"), (89, "89 seconds"), (95, "1.6 minutes"), (5390, "89.8 minutes"), (9000, "2.5 hours")],
)
def test_times_are_in_units_that_people_use(seconds, text):
    assert readable_time(seconds) == text


def test_log_lines():
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "%s", (HOSTILE,), None)
    line = ShownFormatter("%(levelname)s: %(message)s").format(record)
    check(line)
    line.encode()


def test_a_clock_that_stands_still_gives_no_rate():
    assert console.per_second(3, 0.0) == "too short to measure"
    assert console.per_second(3, 2.0) == "1.50 a second"


def test_every_console_of_the_command_is_safe():
    assert isinstance(console.out, SafeConsole)
    assert isinstance(console.err, SafeConsole)
    assert isinstance(console.wide(), SafeConsole)
    assert issubclass(SafeConsole, Console)
