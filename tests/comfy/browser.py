"""ComfyUI's page in headless Chromium, through its debugging protocol."""

import asyncio
import base64
import itertools
import json
import os
import subprocess
import tempfile
from pathlib import Path

import aiohttp

SIZE = "1800,1100"
_READY = "Boolean(window.app && window.app.graph && window.app.canvas && window.app.extensionManager)"
_LOAD = """(async () => {
  const workflow = %s;
  await window.app.loadGraphData(workflow);
  window.app.canvas.ds.fitToBounds?.(window.app.graph.nodes.reduce((box, node) => {
    const [x, y] = node.pos, [w, h] = node.size;
    return [Math.min(box[0], x), Math.min(box[1], y - 40), Math.max(box[2], x + w), Math.max(box[3], y + h)];
  }, [1e9, 1e9, -1e9, -1e9]).map((value, index, box) => index < 2 ? value : value - box[index - 2]), { zoom: 0.9 });
  window.app.canvas.draw(true, true);
  const missing = window.app.graph.nodes.filter(node => !node.constructor.nodeData && !node.type.includes("Note"));
  const prompt = await window.app.graphToPrompt();
  return JSON.stringify({ prompt: prompt.output, missing: missing.map(node => node.type) });
})()"""


class Page:
    """One tab; `async with Page(chromium, address)` waits until ComfyUI is ready in it."""

    def __init__(self, chromium: str, address: str) -> None:
        self._chromium, self._address = chromium, address
        self._ids = itertools.count(1)

    async def __aenter__(self) -> "Page":
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [self._chromium, "--headless=new", *sandbox, "--remote-debugging-port=0", "--remote-allow-origins=*",
             f"--user-data-dir={self._profile.name}", f"--window-size={SIZE}", "--hide-scrollbars", "--disable-gpu",
             "--no-first-run", "--disable-background-networking", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        port_file = Path(self._profile.name) / "DevToolsActivePort"
        for _ in range(100):
            if port_file.is_file() and port_file.read_text():
                break
            await asyncio.sleep(0.2)
        port = port_file.read_text().split()[0]
        self._http = aiohttp.ClientSession()
        async with self._http.get(f"http://127.0.0.1:{port}/json") as answer:
            tab = next(tab for tab in await answer.json() if tab["type"] == "page")
        self._socket = await self._http.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0)
        await self._call("Page.navigate", url=f"http://{self._address}/")
        for _ in range(150):
            await asyncio.sleep(0.4)
            if await self.evaluate(_READY):
                break
        else:
            raise RuntimeError("ComfyUI's page did not become ready.")
        await asyncio.sleep(2)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()
        self._process.terminate()
        self._process.wait(30)
        self._profile.cleanup()

    async def _call(self, method: str, **params: object) -> dict:
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            answer = json.loads((await asyncio.wait_for(self._socket.receive(), 90)).data)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    async def evaluate(self, expression: str) -> object:
        """The value of an expression in the page, awaited."""
        result = await self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"])[:600])
        return result["result"].get("value")

    async def load(self, workflow: Path) -> tuple[dict, list[str]]:
        """Open a workflow; returns the prompt that the page makes of it, and types that it does not know."""
        answer = json.loads(str(await self.evaluate(_LOAD % workflow.read_text(encoding="utf-8"))))
        await asyncio.sleep(1)
        return answer["prompt"], answer["missing"]

    async def screenshot(self, target: Path) -> None:
        """The page as PNG."""
        shot = await self._call("Page.captureScreenshot", format="png")
        target.write_bytes(base64.b64decode(shot["data"]))
