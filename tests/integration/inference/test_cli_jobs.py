"""Batches and jobs by the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests import graphs
from tests.platform import USD, Account, Platform

Mercat = Callable[..., "CompletedProcess[str]"]
PRICE = {"requests": 1_000_000_000_000}  # a thousandth of a dollar a call


@pytest.fixture(scope="module")
def model(platform: Platform) -> str:
    return platform.publish(platform.publisher(), graphs.addition(), batch=64, price=PRICE)


@pytest.fixture
def account(platform: Platform) -> Account:
    return platform.sign_up(credit=10 * USD)


@pytest.fixture
def mercat(platform: Platform, account: Account) -> Mercat:
    return lambda *words: platform.command(*words, MERCAT_API_KEY=account.api_key)


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    """1,200 of them, of which the third fails."""
    file = tmp_path / "requests.jsonl"
    with file.open("w") as to:
        for i in range(1200):
            names = ("a", "b") if i != 2 else ("a",)
            to.write(json.dumps({"inputs": [{"name": n, "data": [i]} for n in names]}) + "\n")
    return file


def test_a_batch_is_a_line_for_a_line(mercat: Mercat, account: Account, model: str, requests: Path) -> None:
    done = mercat("batch", str(requests), "--model", model)
    assert done.returncode == 1, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["index"] for line in lines] == list(range(1200))
    assert all(line["response"]["outputs"][0]["data"] == [2 * i] for i, line in enumerate(lines) if i != 2)
    assert lines[2]["error"]["details"][0]["reason"] == "TENSOR_INVALID"
    assert "1,200 calls, 1 of them failed" in done.stderr
    assert sum(int(line["response"]["costNanos"]) for line in lines if "response" in line) == 1199 * USD // 1000


def test_what_is_no_file_of_requests(mercat: Mercat, model: str, requests: Path, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        done = mercat(*words)
        assert done.returncode == 2
        return " ".join(done.stderr.replace("│", " ").split())

    assert "line 1 names no model" in said("batch", str(requests))
    assert "1,200 requests and a job 1,000 at most" in said("jobs", "create", str(requests), "--model", model)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"inputs": []}\n[1]\n')
    assert "line 2" in said("batch", str(broken), "--model", model)
    broken.write_text("\n")
    assert "holds no request" in said("batch", str(broken))
    assert "is no state" in said("jobs", "list", "--state", "done")


def test_a_job_from_file_to_file(mercat: Mercat, model: str, requests: Path, tmp_path: Path) -> None:
    def says(*words: str) -> str:
        done = mercat(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    short, to = tmp_path / "short.jsonl", tmp_path / "out.jsonl"
    short.write_text("\n".join(requests.read_text().splitlines()[:50]))
    made = json.loads(says("jobs", "create", str(short), "--model", model, "--wait", "--json"))
    assert (made["state"], made["doneCount"], made["failedCount"]) == ("JOB_STATE_SUCCEEDED", 50, 1)
    job = made["jobId"]
    assert "50 lines written" in says("jobs", "result", job, "--output", str(to))
    assert says("jobs", "result", job) == to.read_text()
    lines = [json.loads(line) for line in to.read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(50))
    assert lines[49]["response"]["outputs"][0]["data"] == [98]
    assert job in says("jobs", "list", "--state", "succeeded")
    assert "50 of 50, 1 of them failed" in says("jobs", "get", job)
    assert "succeeded" in says("jobs", "cancel", job)
    assert "is forgotten" in says("jobs", "delete", job)
    gone = mercat("jobs", "get", job)
    assert (gone.returncode, "JOB_NOT_FOUND" in gone.stderr) == (1, True)


def test_waiting_for_a_job_that_fails(mercat: Mercat, tmp_path: Path) -> None:
    failing = tmp_path / "failing.jsonl"
    failing.write_text('{"model": "no/such", "inputs": [{"name": "a", "data": [1]}]}\n')
    done = mercat("jobs", "create", str(failing), "--wait")
    assert done.returncode == 1
    assert "there is no model no/such" in done.stdout
