"""`mercat webhooks`, as people use it."""

import json
import signal
import subprocess
import sys
import time
from typing import Any

from mercat.auth.v1 import auth_pb2

from tests.platform import Account, Platform
from tests.webhook_receiver import Receiver


def run(platform: Platform, person: Account, *args: str) -> str:
    done = platform.command("webhooks", *args, MERCAT_API_KEY=person.api_key)
    assert done.returncode == 0, done.stderr
    return done.stdout


def said(platform: Platform, person: Account, *args: str) -> Any:
    return json.loads(run(platform, person, *args, "--json"))


def test_an_endpoint_from_beginning_to_end(platform: Platform, person: Account, there: Receiver) -> None:
    made = said(platform, person, "create", there.url("/x"), "--event", "api_key.created", "--description", "ours")
    endpoint, secret = made["endpoint"]["endpointId"], made["secret"]
    assert "api_key.created" in run(platform, person, "events")
    assert endpoint in run(platform, person, "list")
    sent = said(platform, person, "test", endpoint)
    assert there.wait("/x")[0].verified(secret)["test"] is True
    deadline = time.monotonic() + 20
    while said(platform, person, "delivery", sent["deliveryId"])["state"] != "WEBHOOK_DELIVERY_STATE_SUCCEEDED":
        assert time.monotonic() < deadline
    assert "succeeded" in run(platform, person, "deliveries", endpoint, "--state", "succeeded")
    assert "heard" in run(platform, person, "delivery", sent["deliveryId"])
    run(platform, person, "redeliver", sent["deliveryId"])
    assert there.wait("/x", 2)[1].id == there.received[0].id
    assert "0 deliveries" in run(platform, person, "redeliver", endpoint, "--since", "2026-01-01")
    rotated = said(platform, person, "rotate-secret", endpoint, "--overlap", "7d")
    assert rotated["secret"] != secret
    changed = said(platform, person, "update", endpoint, "--disable", "--all-events", "--url", there.url("/y"))
    assert (changed["enabled"], changed["eventTypes"], changed["url"]) == (False, [], there.url("/y"))
    assert "disabled (by hand)" in run(platform, person, "get", endpoint)
    assert changed["description"] == "ours"
    run(platform, person, "delete", endpoint)
    gone = platform.command("webhooks", "get", endpoint, MERCAT_API_KEY=person.api_key)
    assert gone.returncode == 1
    assert "WEBHOOK_ENDPOINT_NOT_FOUND" in gone.stderr


def test_events_come_to_a_local_port(platform: Platform, person: Account, there: Receiver) -> None:
    secret = "whsec_" + "QUJD" * 10 + "QQ=="
    command = [sys.executable, "-m", "services.cli.main", "webhooks", "listen", "--forward", there.url("/local")]
    environment = platform.environment | {
        "MERCAT_API_KEY": person.api_key, "MERCAT_WEBHOOK_SECRET": secret, "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        assert secret in listening.stdout.readline()
        assert listening.stdout.readline().startswith("Ready.")
        key = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k")).api_key
        [came] = there.wait("/local")
        assert came.verified(secret)["data"]["keyId"] == key.key_id
        assert listening.stdout.readline().split() == ["api_key.created", came.id, "200"]
        listening.send_signal(signal.SIGINT)
        assert listening.wait(20) == 0
