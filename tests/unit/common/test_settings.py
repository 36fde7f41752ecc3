"""Settings are found by their package, which costs no other one's imports."""

import subprocess
import sys

import pytest

from services.common.settings import Settings, discover, settings_of

SEEN = """
import sys
from services.common.settings import settings_of
print(settings_of(sys.argv[1]).__name__, *sorted({n.split(".")[1] for n in sys.modules if n.startswith("services.")}))
"""


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("services.storage", "StorageSettings common storage"),
        ("services.inference", "InferenceSettings common inference"),
        ("gateway_rest", "GatewaySettings common"),
    ],
)
def test_of_one_package(package: str, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", SEEN, package], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == said


def test_all_of_them() -> None:
    found = discover()
    assert {"storage", "inference", "gateway_rest", "embedded"} <= found.keys()
    assert "common" not in found
    assert all(issubclass(cls, Settings) and cls is not Settings for cls in found.values())
    assert settings_of("services.nowhere") is Settings
