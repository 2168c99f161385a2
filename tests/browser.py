"""A real browser for tests of pages: Debian's Chromium, headless, driven by its own chromedriver."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.requires import requires

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def find_browser() -> tuple[str, str]:
    """Paths of Chromium and its driver. Skips the test where they are not installed."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("there is no chromium with its chromedriver here: apt-get install chromium chromium-driver")
    return browser, driver


class Page:
    """A page in the browser: what it holds, what it logged, and what it asked the network for."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, file: Path) -> None:
        self.requests(), self.complaints()  # of the page before
        self.driver.get(file.as_uri())

    def resize(self, width: int, height: int = 1000) -> None:
        """The page's own width in pixels, as a phone or a wide screen has it."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, scheme: str, motion: str = "no-preference") -> None:
        """What the system prefers: "dark" or "light", and whether motion is to be reduced."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def ask(self, script: str, *arguments: Any) -> Any:
        """The value of a script's `return`."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def complaints(self) -> list[str]:
        """What the console got since it was last asked: errors and warnings, the policy's refusals among them."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def requests(self) -> list[str]:
        """The URLs asked for since this was last called, without what lies in the page itself."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")]

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(self.ask("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def screenshot(self, file: Path, height: int | None = None) -> None:
        """A picture of the page from its top: of all of it, or of `height` pixels."""
        width = int(self.ask("return document.documentElement.clientWidth"))
        self.resize(width, height or int(self.ask("return document.documentElement.scrollHeight")))
        self.driver.save_screenshot(str(file))


@contextmanager
def browse(profile: Path) -> Iterator[Page]:
    """A fresh browser with its user data under `profile`; ended with the block."""
    browser, driver_path = find_browser()
    requires("selenium", install="'fcn-pipeline[test]'")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # The driver's path is given: Selenium has nothing to look for, and nothing to download.
    environment = {**os.environ, "HOME": str(profile), "SE_OFFLINE": "true", "SE_AVOID_STATS": "true"}
    service = webdriver.ChromeService(executable_path=driver_path, env=environment)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.get("about:blank")  # the page of a new tab asks for files of the browser's own
        yield Page(driver)
    finally:
        driver.quit()
