"""Compiling ahead: every kernel once, none run, side by side."""

import threading

import pytest
import triton

from seedvr2_engine.kernels.launch import compile_ahead, launch


class Kernel:
    """Stands in for a compiled function of Triton, which needs a GPU's driver to be asked for one."""

    def __init__(self):
        self.compiled: list[tuple[object, ...]] = []
        self.ran: list[tuple[object, ...]] = []
        self.loaded = 0
        self.module = None
        self._run: object = None

    def warmup(self, *arguments, grid, **options):
        self.compiled.append((grid, arguments, options))
        return self

    @property
    def run(self):
        """What Triton makes at the first launch."""
        if self._run is None:
            self.loaded += 1
            self._run = "a launch function without code"
            raise RuntimeError("no GPU")
        return self._run

    def __getitem__(self, grid):
        return lambda *arguments, **options: self.ran.append((grid, arguments, options))


@pytest.fixture
def compiler(monkeypatch):
    """As if the interpreter were off."""
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)


def test_ahead_compiles_and_runs_nothing(compiler):
    kernel = Kernel()
    compile_ahead([lambda: launch(kernel, (2, 3), 1, 2, BLOCK=4)])
    assert kernel.compiled == [((2, 3), (1, 2), {"BLOCK": 4})]
    assert kernel.loaded == 1
    assert kernel.ran == []
    launch(kernel, (2, 3), 1, 2, BLOCK=4)
    assert kernel.ran == kernel.compiled


def test_a_failure_ends_the_compiling(compiler):
    kernel = Kernel()

    def wrong():
        raise ValueError("no such operand")

    with pytest.raises(ValueError, match="operand"):
        compile_ahead([wrong])
    launch(kernel, (1,))
    assert kernel.ran


def test_a_kernel_is_loaded_once(compiler):
    kernel = Kernel()
    compile_ahead([lambda: launch(kernel, (1,))] * 3)
    assert kernel.loaded == 1


def test_a_failed_load_is_met_again_by_the_launch(compiler):
    kernel = Kernel()
    compile_ahead([lambda: launch(kernel, (1,))])
    with pytest.raises(RuntimeError, match="no GPU"):
        _ = kernel.run


def test_other_threads_go_on_launching(compiler):
    kernel = Kernel()

    def elsewhere():
        thread = threading.Thread(target=launch, args=(kernel, (1,)))
        thread.start()
        thread.join()

    compile_ahead([elsewhere])
    assert kernel.ran
    assert not kernel.compiled


def test_the_interpreter_has_nothing_to_compile(monkeypatch):
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    kernel = Kernel()
    compile_ahead([lambda: launch(kernel, (1,))])
    assert not kernel.ran
    assert not kernel.compiled
