"""What a platform's processes count, as Prometheus reads it."""

import urllib.request
from collections import Counter

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.platform import Platform


def scrape(platform: Platform, part: str) -> Counter[tuple[str, str, str]]:
    """The samples of one process by (name, value of `model` where it has one, `le` where it has one)."""
    command = psutil.Process(platform.pids()[part]).cmdline()
    port = command[command.index("--metrics") + 1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: Counter[tuple[str, str, str]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, sample.labels.get("model", ""), sample.labels.get("le", "")] += sample.value
    return found


def total(platform: Platform, name: str, model: str = "", le: str = "") -> float:
    """A sample's value over all workers and versions."""
    workers = [part for part in platform.pids() if part.startswith("worker-")]
    return sum(scrape(platform, part)[name, model, le] for part in workers)
