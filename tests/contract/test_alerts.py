"""Alerts ask for metrics that there are, by labels that those have."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from services.billing.proof import hourly
from services.usage import consumer

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "mercat.rules.yml"
ALERTS: list[dict[str, Any]] = [r for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"]]


def exported() -> set[str]:
    """Names of samples; every child that alerts ask for is made."""
    assert consumer.REFUSED is not None
    for scope in (hourly.MONTH, hourly.ALL):
        hourly.ENDED.labels(scope)
    return {
        s.name + "".join(f'{{{k}="{v}"}}' for k, v in s.labels.items() if k == "scope")
        for family in REGISTRY.collect()
        for s in family.samples
    }


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_asks_for_metrics_that_there_are(alert: dict[str, Any]) -> None:
    asked = re.findall(r'mercat_\w+(?:\{scope="\w+"\})?', alert["expr"])
    assert asked
    assert set(asked) <= exported()
    assert alert["annotations"].keys() == {"summary", "description"}
