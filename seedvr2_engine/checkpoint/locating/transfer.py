"""Bring the bytes of one public file here, continuing a partial file where it ends.

`huggingface_hub` supplies the address, the endpoint and the token; the bytes are streamed here, with Range
requests. Its own `hf_hub_download` discards a partial file when a download fails (2.4) and takes no progress
callback (0.30), while a 16 GB file must survive a lost connection under every release.
"""

import http.client
import os
import queue
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from ...errors import ModelFileError
from ...version import __version__
from .registry import ModelFile

Progress = Callable[[int, int], None]
"""Called with (bytes here, bytes in all); what it raises stops the transfer and leaves the partial file."""

MAX_FRUITLESS_ATTEMPTS = 4
"""Connections in a row that may bring nothing, or hardly anything, before a transfer gives up."""
FRUITFUL_BYTES = 64 << 10
"""What a connection must bring at least to count, of large files: a server that drips would never be given up."""
STALL_S = 30.0
MIN_BYTES_PER_S = 1000.0
"""A connection is ended that is slower than this over `STALL_S`; a 16 GB file would take half a year."""
OPENING_S = 60.0
"""How long a server may take to answer in all, redirects included."""
RETRY_PAUSE_S = 0.5
"""Pause after a connection that brought bytes; doubled for each one that did not."""

_CHUNK_BYTES = 1 << 20
_TOLD_EVERY_S = 0.5
_PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_REMEDIES = {
    401: "check the name, or log in with `hf auth login`",
    403: "ask for access on its page, then log in with `hf auth login`",
    404: "it was moved or removed there, so look for a newer release of this program",
}


@dataclass(frozen=True)
class Address:
    """Where a file is asked for, and as whom."""

    url: str
    """http or https."""
    headers: dict[str, str]
    """Headers that may follow a redirect to another host."""
    authorization: str | None
    """The Authorization header; it goes to `url` alone, never to where that redirects."""


class _InterruptedTransferError(Exception):
    """The connection failed in a way that may pass; never leaves this module."""


def hub_address(model: ModelFile, endpoint: str | None, token: str | None) -> Address:
    """The address of `model` at `endpoint`; None for either leaves it to huggingface_hub and its environment.

    Raises `ModelFileError` for an endpoint that is neither http nor https.
    """
    # Imported on use: reading a local file must not need a hub client.
    from huggingface_hub import constants, get_token, hf_hub_url

    url = hf_hub_url(model.repository, model.path, revision=model.revision, endpoint=endpoint)
    if not url.startswith(("https://", "http://")):
        raise ModelFileError(f"{url}: expected an http or https address; correct the endpoint (HF_ENDPOINT).")
    if token is None and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        token = get_token()
    # Its `build_hf_headers` asks the endpoint for a list of programs first (2.4), and waits for that without limit.
    return Address(url, {"User-Agent": f"seedvr2-engine/{__version__}"}, f"Bearer {token}" if token else None)


def fetch(model: ModelFile, address: Address, partial: Path, on_progress: Progress | None = None) -> None:
    """Fill `partial` to the size of `model`, reconnecting as long as bytes keep arriving.

    The content is not verified here. Raises `ModelFileError` when the server refuses, offers another size, or
    stops sending; `OSError` when `partial` cannot be written. The partial file stays in every case.
    """
    fruitless = 0
    while (before := _size(partial)) < model.size_bytes:
        try:
            _append(model, address, partial, on_progress)
        except _InterruptedTransferError as error:
            there = _size(partial)
            fruitless = 0 if there - before >= min(FRUITFUL_BYTES, model.size_bytes // 16 + 1) else fruitless + 1
            if fruitless == MAX_FRUITLESS_ATTEMPTS:
                raise ModelFileError(
                    f"{model.name}: the download from {address.url} stopped at {there:,} of "
                    f"{model.size_bytes:,} bytes ({error}); check the connection and run the same command "
                    "again to continue."
                ) from error
            time.sleep(RETRY_PAUSE_S * 2**fruitless)


def open_partial(partial: Path) -> BinaryIO:
    """Open a partial file to be written on, or make it; never through a link, which raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(partial, flags, 0o666), "r+b")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _append(model: ModelFile, address: Address, partial: Path, on_progress: Progress | None) -> None:
    """One connection: ask for the bytes after the end of `partial` and write them as they come."""
    with _open(model, address, _size(partial)) as response:
        done = _start_of(response, model)
        if done > _size(partial):
            raise _InterruptedTransferError(f"the server sent bytes from {done:,} on, which were not asked for")
        with open_partial(partial) as file:
            file.truncate(done)
            file.seek(done)
            pace = _Pace()
            while done < model.size_bytes:
                try:
                    # What is there, and not all that was asked for: that would wait for a slow server's last byte.
                    chunk = response.read1(min(_CHUNK_BYTES, model.size_bytes - done))
                except (http.client.HTTPException, OSError) as error:
                    raise _InterruptedTransferError(_reason(error)) from error
                if not chunk:
                    raise _InterruptedTransferError("the connection was closed")
                file.write(chunk)
                done += len(chunk)
                pace.arrived(len(chunk))
                if on_progress is not None and (pace.is_to_be_told() or done == model.size_bytes):
                    on_progress(done, model.size_bytes)
            file.flush()
            os.fsync(file.fileno())


class _Pace:
    """Ends a connection that goes on sending, but hardly anything; and says when a caller is to hear of progress."""

    def __init__(self) -> None:
        self._since = self._told = time.monotonic()
        self._bytes = self._untold_bytes = 0

    def is_to_be_told(self) -> bool:
        """Whether a megabyte, or half a second's bytes, arrived since this was last true; they come by the packet."""
        now = time.monotonic()
        if self._untold_bytes < _CHUNK_BYTES and now - self._told < _TOLD_EVERY_S:
            return False
        self._told, self._untold_bytes = now, 0
        return True

    def arrived(self, count: int) -> None:
        """Count bytes; raises once a span of `STALL_S` has brought too few."""
        self._bytes += count
        self._untold_bytes += count
        seconds = time.monotonic() - self._since
        if seconds >= STALL_S:
            if self._bytes < MIN_BYTES_PER_S * seconds:
                raise _InterruptedTransferError(f"only {self._bytes:,} bytes arrived in {seconds:.0f} s")
            self._since, self._bytes = time.monotonic(), 0


def _start_of(response: http.client.HTTPResponse, model: ModelFile) -> int:
    """The offset of the first byte of `response`, whose stated total must be the size of `model`.

    A server may answer a Range request with the whole file (200); its first byte is then 0.
    """
    start, total = "0", response.headers.get("Content-Length", "")
    if response.status == http.client.PARTIAL_CONTENT:
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        start = span.partition("-")[0]
    if not start.isdecimal():
        raise _InterruptedTransferError("the server sent a part of the file without saying which")
    if total.isdecimal() and int(total) != model.size_bytes:
        raise ModelFileError(
            f"{model.name}: expected {model.size_bytes:,} bytes, but {model.repository} offers "
            f"{int(total):,}; the file was replaced there, so look for a newer release of this program."
        )
    return int(start)


def _open(model: ModelFile, address: Address, start: int) -> http.client.HTTPResponse:
    """Ask for the bytes from `start` on, telling failures that may pass from those that do not."""
    import certifi
    from huggingface_hub import constants

    request = urllib.request.Request(address.url, headers=address.headers)
    if start:
        request.add_header("Range", f"bytes={start}-")
    if address.authorization is not None:
        request.add_unredirected_header("Authorization", address.authorization)
    # The system's authorities can be an empty list (macOS), while a company's own are nowhere else.
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _Redirects)
    try:
        response = _within(OPENING_S, lambda: opener.open(request, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _PASSING_STATUSES:
            raise _InterruptedTransferError(f"HTTP {error.code}") from error
        raise ModelFileError(
            f"{model.name}: {address.url} answered HTTP {error.code}; {_REMEDIES.get(error.code, 'try again later')}."
        ) from error
    except (http.client.HTTPException, OSError) as error:
        raise _InterruptedTransferError(_reason(error)) from error
    except ValueError as error:  # What urllib makes of an address that is none.
        raise ModelFileError(
            f"{model.name}: {address.url} led to an address that cannot be read ({error}); try again later, or correct "
            "the endpoint (HF_ENDPOINT)."
        ) from error
    assert isinstance(response, http.client.HTTPResponse)
    return response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, a few times; urllib would go on to ftp."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """As the base class does it; raises ValueError for another kind of address."""
        if not newurl.lower().startswith(("https://", "http://")):
            raise ValueError("neither http nor https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call` gives; raises TimeoutError where it takes longer, and leaves it to a thread that nobody waits for.

    A timeout of a socket begins anew with every byte, and so does not bound how long an answer's head may take.
    """
    results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            results.put((call(), None))
        except BaseException as error:
            results.put((None, error))

    threading.Thread(target=work, name="download", daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    return result


def _reason(error: Exception) -> str:
    """What to show of a network error, which may wrap another and may be empty."""
    return str(getattr(error, "reason", error)) or type(error).__name__
