"""Processes that tests start. None outlives them, however they end: by Ctrl-C, by a signal, or killed."""

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from signal import SIGTERM
from typing import Any

from services.embedded.process import bound

# The kernel tells a process of the death of the thread that started it: this one lives as long as the tests.
_STARTER = ThreadPoolExecutor(1)


def start(argv: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """`subprocess.Popen` of a program whose path is whole; SIGTERM ends it when this process is gone."""
    return _STARTER.submit(subprocess.Popen, bound(argv, SIGTERM), **options).result()
