"""Chromium, seen through its DevTools protocol: what a page looks like to people, what it loads, and what it was forbidden to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.components import CHROMIUM_NAMES, require

START_SECONDS = 60


class Browser:
    """One tab. `requested` are the addresses that it asked for, `complaints` what it logged of a page, CSP violations among them."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.requested: list[str] = []
        self.complaints: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()

    async def open(self, url: str, *, width: int = 1000, dark: bool = False) -> None:
        """Returns when the page is there."""
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.send("Emulation.setEmulatedMedia", features=media)
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self._loaded.clear()
        await self.send("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), START_SECONDS)

    async def follow(self, href: str) -> None:
        """Clicks on the link; returns when the next page is there."""
        self._loaded.clear()
        assert await self.see(f"(a => a && (a.click(), true))(document.querySelector('a[href=\"{href}\"]'))"), href
        await asyncio.wait_for(self._loaded.wait(), START_SECONDS)

    async def see(self, expression: str) -> Any:
        """What the expression is in the page."""
        told = await self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        return told["result"].get("value")

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command of the protocol."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        return await asyncio.wait_for(self._answers[number], START_SECONDS)

    async def listen(self) -> None:
        """Takes what Chromium says, until cancelled."""
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told.get("result", {}))
            elif told["method"] == "Network.requestWillBeSent":
                self.requested.append(told["params"]["request"]["url"])
            elif told["method"] == "Log.entryAdded":
                self.complaints.append(told["params"]["entry"]["text"])
            elif told["method"] == "Page.loadEventFired":
                self._loaded.set()


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Browser]:
    """A browser that never was anywhere, with its data in `folder`; skips the test when there is none on this machine."""
    require("Chromium")
    program = next(filter(None, map(shutil.which, CHROMIUM_NAMES)))
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    process = subprocess.Popen(
        [program, *arguments, f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as session:
            address = await _address(session, folder / "DevToolsActivePort")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                tab = Browser(socket)
                listening = asyncio.create_task(tab.listen())
                for domain in ("Page", "Network", "Log", "Runtime"):
                    await tab.send(f"{domain}.enable")
                yield tab
                listening.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await listening
    finally:
        process.terminate()
        process.wait(START_SECONDS)


async def _address(session: aiohttp.ClientSession, file: Path) -> str:
    """The address of the first tab, as soon as there is one."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            if file.exists() and (lines := file.read_text().splitlines()):
                async with session.get(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                    for tab in await answer.json():
                        if tab["type"] == "page":
                            return str(tab["webSocketDebuggerUrl"])
            await asyncio.sleep(0.1)
