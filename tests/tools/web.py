"""The web demo in a browser."""

import re
import shutil
import time

import numpy as np
import pytest

BROWSERS = "chromium", "chromium-browser", "google-chrome"
FLAGS = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]


def launch(starter, *flags):
    """A browser of this machine; `starter` as of playwright."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        return starter.chromium.launch(executable_path=path, args=[*FLAGS, *flags])
    except Exception as error:
        pytest.skip(f"no browser: {error}")


class Tab:
    """A page in the browser, with its console messages, errors and requests."""

    def __init__(self, browser, address, **settings):
        self.page = browser.new_page(**settings)
        self.messages, self.requests = [], []
        self.page.on("console", lambda line: self.messages.append(line.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def ready(self):
        self.page.wait_for_selector("#app:not([hidden])", timeout=60_000)
        return self

    def run(self, script, argument=None):
        return self.page.evaluate(script, argument)

    def wait(self, script, seconds=60):
        """Wait until an expression is true; the page's policy forbids playwright's own way."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, script
            self.page.wait_for_timeout(20)

    def rest(self):
        """Wait until nothing is rendered any more."""
        self.wait("page.framesToRender === 0 && !page.clock.playing")

    def image(self):
        """The canvas, uint8 `(H, W, 3)`."""
        script = (
            "() => { const c = document.getElementById('image'), at = c.getContext('2d');"
            " return [c.height, c.width, [...at.getImageData(0, 0, c.width, c.height).data]]; }"
        )
        height, width, values = self.run(script)
        return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]

    def stage_classes(self):
        return self.page.locator("#stage").get_attribute("class") or ""

    def drag(self, joint, across, down):
        """Drag a joint by some pixels of the pose image, with the mouse."""
        handle = self.page.get_by_role("button", name=re.compile(f"^{joint}:")).bounding_box()
        x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
        zoom = self.page.locator("#overlay").bounding_box()["width"] / self.run("page.facts.style.size[0]")
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + across * zoom, y + down * zoom, steps=4)
        self.page.mouse.up()
