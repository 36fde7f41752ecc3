"""The main job by the command line alone: a publisher sells a model, a consumer finds, calls and pays for it."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex

import numpy as np
import pytest

from tests import decoders, encoders, graphs
from tests.expect import until
from tests.platform import Platform
from tests.terminal import Person

PRICE = "0.002"  # USD a call
PRICE_NANOS = 2_000_000
CALLS = 5


@pytest.fixture
def person(platform: Platform, tmp_path: Path) -> Callable[..., Person]:
    return lambda *signup: Person.signed_up(platform, tmp_path, *signup)


@pytest.fixture
def admin(platform: Platform, tmp_path: Path) -> Person:
    return Person.admin(platform, tmp_path)


def test_the_main_job(person: Callable[..., Person], admin: Person, tmp_path: Path) -> None:
    publisher, consumer = person("--publisher"), person()
    word = f"zyx{token_hex(4)}"
    file = tmp_path / "model.onnx"
    file.write_bytes(graphs.addition())

    # A publisher pushes a model with a price; it is validated, reviewed, published.
    pushed = publisher.json(
        "models", "push", str(file), "--name", "adder", "--version", "1.0.0", "--summary", f"Adds {word}",
        "--category", "other", "--task", "arithmetic", "--license", "MIT", "--price", f"requests={PRICE}", "--submit",
    )  # fmt: skip
    model = pushed["version"]["model"]
    assert pushed["created"] is True
    assert pushed["version"]["state"] == "VERSION_STATE_REVIEW"
    assert [spec["name"] for spec in pushed["version"]["signature"]["inputs"]] == ["a", "b"]
    assert f"{model}@1.0.0" in admin("models", "reviews")
    admin("models", "approve", f"{model}@1.0.0")
    assert f"{model}@1.0.0 is published" in publisher("models", "publish", "adder@1.0.0")

    # A consumer adds credit, makes a key, finds the model.
    consumer("topup", "1")
    secret = consumer.json("keys", "create", "app", "--scope", "inference:call")["secret"]
    until(lambda: model in consumer("search", word))
    assert "0.002 USD a request" in consumer("models", "show", model)
    inputs = ("--input", "a=[1, 2, 9007199254740993]", "--input", "b=[10, 20, 1]")
    assert consumer.json("quote", model, *inputs)["costNanos"] == str(PRICE_NANOS)

    # They call it; the reply carries its cost.
    requests = set()
    for _ in range(CALLS):
        answer = consumer.json("infer", model, *inputs, MERCAT_API_KEY=secret)
        assert answer["costNanos"] == str(PRICE_NANOS)
        assert answer["outputs"][0]["data"] == [11, 22, "9007199254740994"]
        requests.add(answer["requestId"])
    assert len(requests) == CALLS

    # Each call is in the usage once; what one paid the other and the platform got.
    def recorded() -> set[str]:
        return {record["requestId"] for record in consumer.json("usage", "--model", model)["records"]}

    until(lambda: recorded() == requests)
    assert len(consumer.json("usage", "--model", model)["records"]) == CALLS
    earned = publisher.json("earnings")
    fee = CALLS * PRICE_NANOS * earned["platformFeePpm"] // 1_000_000

    def settled() -> bool:
        balance = int(consumer.json("balance")["balanceNanos"])
        return balance == 1_000_000_000 - CALLS * PRICE_NANOS

    until(settled)
    assert int(publisher.json("earnings")["payableNanos"]) == CALLS * PRICE_NANOS - fee
    assert publisher.json("usage", "--summary", "--publisher")["calls"] == str(CALLS)

    # A receipt, checked without asking anybody; and one that somebody has edited.
    receipt, keys = tmp_path / "call.receipt", tmp_path / "keys.json"
    consumer(
        "receipts", "get", consumer.json("usage", "--model", model)["records"][0]["requestId"], "--out", str(receipt)
    )
    keys.write_text(consumer("receipts", "keys"))
    offline = {"MERCAT_SERVER": "127.0.0.1:1", "MERCAT_HOME": str(tmp_path / "elsewhere")}
    said = consumer("receipts", "verify", str(receipt), "--keys", str(keys), **offline)
    assert "Genuine" in said
    assert f"{PRICE} USD" in said
    assert consumer.json("receipts", "verify", str(receipt))["receipt"]["costNanos"] == str(PRICE_NANOS)
    head, body, signature = receipt.read_text().split(".")
    receipt.write_text(".".join((head, body[:40] + ("A" if body[40] != "A" else "B") + body[41:], signature)))
    edited = consumer.run("receipts", "verify", str(receipt), "--keys", str(keys), **offline)
    assert (edited.returncode, "Not genuine: it was changed after it was signed" in edited.stdout) == (1, True)
    assert admin.json("ledger", "check")["clean"] is True
    proof = admin.json("ledger", "prove", "--from", "1h")
    counted = {(s["name"], c["name"]): c["rows"] for s in proof["sections"] for c in s["counts"]}
    assert proof["clean"] is True
    assert counted["usage", "calls"] == counted["ledger", "calls"] != "0"
    assert "The books agree" in admin("ledger", "prove")
    assert "period" in admin.refused("ledger", "prove", "--period", "2026-13")


def test_files_in_and_out(person: Callable[..., Person], admin: Person, tmp_path: Path) -> None:
    publisher = person("--publisher")
    file = tmp_path / "model.onnx"
    file.write_bytes(graphs.addition())
    about = ("--summary", "Adds", "--category", "other", "--task", "arithmetic", "--license", "MIT")
    push = ("models", "push", str(file), "--name", "adder", "--version", "1.0.0", *about)
    assert publisher.json(*push)["version"]["state"] == "VERSION_STATE_DRAFT"
    pushed = publisher.json(*push, "--submit")["version"]  # given again, it goes on
    assert pushed["state"] == "VERSION_STATE_REVIEW"
    assert "VERSION_EXISTS" in publisher.refused(*push)
    model = pushed["model"]
    admin("models", "approve", f"{model}@1.0.0")
    publisher("models", "publish", "adder@1.0.0")
    a, b = np.arange(4, dtype=np.int64), np.full(4, 2**60, np.int64)
    np.save(tmp_path / "a.npy", a)
    (tmp_path / "b.bin").write_bytes(b.tobytes())
    inputs = ("--input", f"a=@{tmp_path / 'a.npy'}", "--raw", f"b={tmp_path / 'b.bin'}")
    shown = publisher("infer", model, *inputs, "--output", str(tmp_path / "sum.npy"))
    assert "cost" in shown
    assert "to load the model" in shown
    assert "to load" not in publisher("infer", model, *inputs, "--output", str(tmp_path / "sum.npy"))
    assert np.array_equal(np.load(tmp_path / "sum.npy"), a + b)
    (tmp_path / "request.json").write_text(
        json.dumps({"inputs": [{"name": "a", "data": [1]}, {"name": "b", "data": [2]}]})
    )
    answer = publisher.json("infer", f"{model}@1.0.0", "--data", str(tmp_path / "request.json"))
    assert answer["outputs"][0]["data"] == [3]


def test_a_version_says_how_it_is_served(person: Callable[..., Person], tmp_path: Path) -> None:
    publisher = person("--publisher")
    file = tmp_path / "model.onnx"
    file.write_bytes(graphs.tiny())
    about = ("--summary", "Tiny", "--category", "other", "--task", "test", "--license", "MIT")
    push = ("models", "push", str(file), "--name", "tiny", "--version", "1.0.0", *about)
    pushed = publisher.json(
        *push, "--max-batch-size", "16", "--preferred-batch", "8", "--preferred-batch", "4", "--max-queue-size", "64",
        "--queue-timeout-us", "5000", "--priority-levels", "3", "--default-priority", "2",
        "--placement", "triton-or-embedded", "--cache-ttl", "60", "--cache-price", "10", "--fallback-version", "0.9.0",
        "--max-queue-delay-us", "100", "--timeout-ms", "900", "--pad", "sequence=64,128", "--pad-value", "x=1",
    )  # fmt: skip
    assert pushed["version"]["settings"] == {
        "maxBatchSize": 16, "maxQueueDelayUs": 100, "timeoutMs": 900,
        "padding": [{"axis": "sequence", "buckets": [64, 128], "values": {"x": 1}}], "preferredBatchSizes": [4, 8],
        "maxQueueSize": 64, "queueTimeoutUs": 5000,
        "priorityLevels": 3, "defaultPriorityLevel": 2, "placement": "PLACEMENT_TRITON_OR_EMBEDDED",
        "responseCache": {"ttlSeconds": 60, "hitPricePercent": 10}, "fallbackVersion": "0.9.0",
    }  # fmt: skip
    said = publisher.refused(*push[:-9], "1.0.1", "--max-batch-size", "4", "--preferred-batch", "8")
    assert "preferred_batch_sizes" in said


def test_text_models_are_pushed_as_one_file(person: Callable[..., Person], tmp_path: Path) -> None:
    publisher = person("--publisher")
    new = ("--version", "1.0.0", "--summary", "s", "--category", "nlp", "--license", "MIT")
    chat, bert, words = tmp_path / "chat.gguf", tmp_path / "bert.onnx", tmp_path / "tokenizer.json"
    chat.write_bytes(decoders.tiny_gguf())
    price = ("--price", "input_tokens=0.1/1M", "--price", "output_tokens=0.4/1M")
    said = publisher("models", "push", str(chat), "--name", "chat", "--task", "text-generation", *new, *price)
    for text in (
        "decoder, llama, with a chat template", "256 tokens", "272 tokens", "nats from the file's own weights",
        "0.1 USD a million input tokens + 0.4 USD a million output tokens",
    ):  # fmt: skip
        assert text in said
    shown = publisher.json("models", "show", "chat@1.0.0")
    assert shown["framework"] == "gguf"
    assert shown["servedDigest"] in publisher("models", "show", "chat@1.0.0")
    bert.write_bytes(encoders.graph())
    words.write_text(encoders.tokenizer())
    embeds = ("--name", "bert", "--task", "text-embedding", *new)
    push = publisher.json("models", "push", str(bert), "--tokenizer", str(words), "--context", "32", *embeds)
    text = push["version"]["text"]
    assert (text["kind"], text["contextTokens"]) == ("TEXT_KIND_ENCODER", 32)
    assert text["vocabularySize"] == len(encoders.WORDS)
    assert int(push["version"]["sizeBytes"]) > bert.stat().st_size
    assert "--tokenizer" in publisher.refused("models", "push", str(bert), "--context", "32", *embeds, status=2)


def test_refusals_say_what_to_do(person: Callable[..., Person], tmp_path: Path) -> None:
    consumer, publisher = person(), person("--publisher")
    said = consumer.refused("infer", "nobody/nothing", "--input", "x=[1]")
    assert "MODEL_NOT_FOUND" in said
    assert "mercat search" in said
    assert "req_" in said
    (tmp_path / "model.onnx").write_bytes(b"\x80\x04not a model at all")
    about = ("--summary", "x", "--category", "other", "--task", "x", "--license", "MIT")
    push = ("models", "push", str(tmp_path / "model.onnx"), "--name", "bad", "--version", "1.0.0", *about)
    assert "ROLE_MISSING" in consumer.refused(*push) or "SCOPE_MISSING" in consumer.refused(*push)
    done = publisher.run(*push)
    assert done.returncode == 1
    assert "NOT_ONNX" in done.stdout
    assert "CREDENTIAL_INVALID" in consumer.refused("whoami", MERCAT_API_KEY="mk_live_wrong")
    assert "mercat up" in consumer.refused("whoami", MERCAT_SERVER="127.0.0.1:1", MERCAT_API_KEY="x", status=3)
    assert "not logged in" in consumer.refused("whoami", "--profile", "other")
    consumer.refused("topup", "lots", status=2)


def test_sessions_are_private_and_end(person: Callable[..., Person]) -> None:
    someone = person()
    kept = next(someone.folder.rglob("credentials.json"))
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert someone.json("whoami")["username"] == someone.name
    someone("logout")
    assert "mercat login" in someone.refused("whoami")


def test_credit_and_budgets_are_given_set_and_shown(person: Callable[..., Person], admin: Person) -> None:
    consumer = person("--publisher")
    org_id = consumer.json("balance")["orgId"]
    assert "You were given no credit" in consumer("credits", "list")
    given = admin("credits", "grant", org_id, "2.50", "--expires", "30d", "--priority", "3", "--reason", "welcome")
    assert f"Gave 2.50 USD to {org_id} until " in given
    (grant,) = consumer.json("credits", "list")["grants"]
    assert (grant["remainingNanos"], grant["priority"], grant["reason"]) == ("2500000000", 3, "welcome")
    assert "welcome" in consumer("credits", "list")
    assert "may go down to -5.00 USD" in admin("credits", "limit", org_id, "5")
    shown = consumer("balance")
    for part in ("credit given", "2.50 USD", "may go below zero by", "5.00 USD", "free to spend", "7.50 USD"):
        assert part in shown
    assert "credits:write" in consumer.refused("credits", "grant", org_id, "1")
    assert "ORGANIZATION_NOT_FOUND" in admin.refused("credits", "limit", "org_none", "1")

    key = consumer.json("keys", "create", "app")["apiKey"]["keyId"]
    assert "You have no budgets" in consumer("budgets", "list")
    assert "all: 100.00 USD of 100.00 USD are left until " in consumer("budgets", "set", "all", "100", "--at", "80")
    consumer("budgets", "set", "ci", "2.50", "--period", "daily", "--key", key)
    consumer("models", "create", "mine", "--summary", "x", "--category", "other", "--task", "t", "--license", "MIT")
    consumer("budgets", "set", "watch", "50", "--model", "mine", "--notify-only")
    listed = consumer("budgets", "list")
    for part in ("all calls", "80 %", key, "2.50 USD", "/mine", "(not enforced)"):
        assert part in listed
    assert "weekly" in consumer.refused("budgets", "set", "all", "1", "--period", "weekly", status=2)
    assert "ci is deleted" in consumer("budgets", "delete", "ci")
    assert "BUDGET_NOT_FOUND" in consumer.refused("budgets", "delete", "ci")
    assert [b["name"] for b in consumer.json("budgets", "list")["budgets"]] == ["all", "watch"]


def test_limits_are_set_and_shown(person: Callable[..., Person], admin: Person) -> None:
    consumer = person("--publisher")
    assert "standard" in consumer("limits", "show")
    key = consumer.json("keys", "create", "app")["apiKey"]["keyId"]
    assert "app: 20 calls a second, 40 at once" in consumer("limits", "key", key, "--rate", "20")
    limit = consumer.json("limits", "show")["apiKeys"][0]["limit"]
    assert (limit["callsPerSecond"], limit["burst"]) == (20, 40)
    quota = consumer("limits", "key", key, "--daily", "80:100", "--concurrent", "3")
    assert "app: 3 under way; 100 a day (warned from 80)" in quota
    assert "0 today, 0 this month" in consumer("limits", "show")
    assert "800:1000" in consumer.refused("limits", "key", key, "--monthly", "many", status=2)
    assert "no limit but the account" in consumer("limits", "key", key, "--remove")
    assert "give --rate" in consumer.refused("limits", "key", key)
    said = admin("limits", "account", consumer.name, "--tier", "free", "--rate", "7", "--burst", "9")
    assert "(free): 7 calls a second, 9 at once" in said
    assert "limits:write" in consumer.refused("limits", "account", consumer.name)
    consumer("models", "create", "mine", "--summary", "x", "--category", "other", "--task", "t", "--license", "MIT")
    assert "mine: 5 calls a second, 10 at once" in consumer("limits", "model", "mine", "--rate", "5")
