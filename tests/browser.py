"""Headless Chromium for tests, with a device in it that holds passkeys."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.virtual_authenticator import VirtualAuthenticatorOptions

# Without its own errands: there is nobody whom it could reach.
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Skips the test where there is no browser, but on a build server, which must have one."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        if os.environ.get("CI") == "true":
            raise RuntimeError("there is no Chromium with chromedriver: run `make tools`")
        pytest.skip("there is no Chromium with chromedriver here: run `make tools`")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, Service(driver))
    try:
        browser.set_page_load_timeout(30)
        yield browser
    finally:
        browser.quit()


def authenticator(*, verifies: bool = True) -> VirtualAuthenticatorOptions:
    """A device that keeps passkeys; `verifies`: its person shows a finger, as they should."""
    options = VirtualAuthenticatorOptions()
    options.protocol = VirtualAuthenticatorOptions.Protocol.CTAP2
    options.transport = VirtualAuthenticatorOptions.Transport.INTERNAL
    options.has_resident_key = options.has_user_verification = True
    options.is_user_verified = verifies
    return options
