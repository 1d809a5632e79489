"""A ComfyUI server on the CPU, and its HTTP and websocket API; runs under ComfyUI's own Python."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

REPOSITORY = Path(__file__).parents[2]

# torchvision's binary for another build of PyTorch leaves its operators undefined, and its import fails for that.
_LAUNCH = """
import runpy, sys
if {defines_operators}:
    import torch
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
sys.path.insert(0, ".")
sys.argv[0] = "main.py"
runpy.run_path("main.py", run_name="__main__")
"""

# Two nodes that carry tensors past 8-bit picture files.
_PROBE = """
import os, torch, folder_paths
from safetensors.torch import load_file, save_file

class ReadFrames:
    INPUT_TYPES = classmethod(lambda s: {"required": {"file": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "run", "test"
    def run(self, file):
        return (load_file(os.path.join(folder_paths.get_input_directory(), file))["frames"],)

class WriteFrames:
    INPUT_TYPES = classmethod(lambda s: {"required": {"image": ("IMAGE",), "file": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "test", True
    def run(self, image, file):
        save_file({"frames": image.contiguous()}, os.path.join(folder_paths.get_output_directory(), file))
        return {}

NODE_CLASS_MAPPINGS = {"ReadFrames": ReadFrames, "WriteFrames": WriteFrames}
"""


@dataclass
class Run:
    """What the server said of one prompt."""

    outcome: str
    """execution_success, execution_error, execution_interrupted, or invalid."""
    seconds: float
    detail: dict
    progress: list[float] = field(default_factory=list)
    """Times of the progress messages, in seconds since the prompt was sent."""
    previews: int = 0
    stopped_after: float | None = None
    """Seconds from pressing the button to the server's answer."""

    @property
    def sentence(self) -> str:
        """The node's error, or the validation's."""
        return str(self.detail.get("exception_message") or json.dumps(self.detail))


class ComfyServer:
    """Started in `async with`; everything it writes is in `base`, a fresh folder."""

    def __init__(self, checkout: Path, base: Path) -> None:
        self.checkout, self.base = checkout, base
        self.log = base / "server.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.id = uuid.uuid4().hex

    async def __aenter__(self) -> "ComfyServer":
        for name in ("custom_nodes", "input", "output", "models/SEEDVR2"):
            (self.base / name).mkdir(parents=True)
        (self.base / "custom_nodes" / "seedvr2_engine").symlink_to(REPOSITORY)
        (self.base / "custom_nodes" / "probe.py").write_text(_PROBE)
        settings = self.base / "user" / "default" / "comfy.settings.json"
        settings.parent.mkdir(parents=True)
        # No page of templates over the first workflow.
        settings.write_text(json.dumps({"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False}))
        broken = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode != 0
        options = ["--cpu", "--port", self.address.split(":")[1], "--base-directory", str(self.base)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH.format(defines_operators=broken), *options],
            cwd=self.checkout, stdout=self.log.open("w"), stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        self._http = aiohttp.ClientSession(f"http://{self.address}")
        await self._until_ready()
        self._socket = await self._http.ws_connect(f"/ws?clientId={self.id}", max_msg_size=0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()
        self._process.terminate()
        self._process.wait(30)

    async def _until_ready(self) -> None:
        for _ in range(300):
            if self._process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended:\n{self.log.read_text()[-3000:]}")
            try:
                await self.get("/system_stats")
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.4)
            else:
                return
        raise RuntimeError(f"ComfyUI did not start:\n{self.log.read_text()[-3000:]}")

    async def get(self, path: str) -> dict:
        """JSON of a GET."""
        async with self._http.get(path) as answer:
            return await answer.json()

    async def status_of(self, path: str) -> int:
        """Status of a GET."""
        async with self._http.get(path) as answer:
            return answer.status

    async def post(self, path: str, content: dict | None = None) -> tuple[int, dict]:
        """(status, JSON) of a POST."""
        async with self._http.post(path, json=content or {}) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith("{") else {}

    def resident_bytes(self) -> int:
        """Memory of the server's process."""
        fields = Path(f"/proc/{self._process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    async def run(self, prompt: dict, *, stop_after: int | None = None) -> Run:
        """Post a prompt and follow it to its end. stop_after: press the button at that progress message."""
        began = time.perf_counter()
        status, answer = await self.post("/prompt", {"prompt": prompt, "client_id": self.id})
        if status != 200:
            return Run("invalid", time.perf_counter() - began, answer)
        run = Run("", 0.0, {})
        pressed = None
        while True:
            message = await asyncio.wait_for(self._socket.receive(), 300)
            now = time.perf_counter()
            if message.type == aiohttp.WSMsgType.BINARY:
                run.previews += 1
                continue
            event = json.loads(message.data)
            data = event["data"]
            if data.get("prompt_id") != answer["prompt_id"]:
                continue
            if event["type"] == "progress":
                run.progress.append(now - began)
                if pressed is None and stop_after is not None and len(run.progress) >= stop_after:
                    pressed = now
                    await self.post("/interrupt")
            if event["type"] in ("execution_success", "execution_error", "execution_interrupted"):
                run.outcome, run.seconds, run.detail = event["type"], now - began, data
                run.stopped_after = None if pressed is None else now - pressed
                return run
