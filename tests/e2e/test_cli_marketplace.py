"""The marketplace at the command line, as somebody uses it who looks for a model."""

import json
import time

from tests.platform import USD, Platform


def test_from_words_to_a_review(platform: Platform) -> None:
    key = platform.sign_up(credit=5 * USD).api_key

    def mercat(*args: str, fails: bool = False) -> str:
        done = platform.command(*args, MERCAT_API_KEY=key)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "mercat/minilm" in mercat("search", "sentnce embedings", "--task", "text-embedding", "--facets")
    found = json.loads(mercat("search", "turn texts into numbers that mean the same", "--json"))
    assert (found["mode"], found["hits"][0]["model"]) == ("SEARCH_MODE_HYBRID", "mercat/minilm")
    assert "mercat/pp-ocr-rec" in mercat("similar", "mercat/pp-ocr-det")
    assert "text-embedding" in mercat("explore", "tasks")
    assert "No model has this figure" in mercat("explore", "top", "rated", "--task", "text-detection")
    compared = mercat("explore", "compare", "mercat/minilm", "mercat/magika", "--units", "rows=1000000")
    assert "this workload" in compared
    version = found["hits"][0]["latestVersion" if "latestVersion" in found["hits"][0] else "latest_version"]
    assert "call it first" in mercat("reviews", "write", f"mercat/minilm@{version}", "--rating", "5", fails=True)
    mercat("embed", "mercat/minilm", "a sentence")
    deadline = time.monotonic() + 5
    review = ("reviews", "write", f"mercat/minilm@{version}", "--rating", "4", "-m", "small [and] quick")
    while platform.command(*review, MERCAT_API_KEY=key).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "small [and] quick" in mercat("reviews", "list", "mercat/minilm")
    mercat("favourites", "add", "mercat/minilm")
    assert "mercat/minilm" in mercat("favourites", "list")
    made = json.loads(mercat("collections", "create", "reading", "--json"))
    identifier = made.get("collectionId") or made["collection_id"]
    assert "mercat/pp-ocr-det" in mercat("collections", "add", identifier, "mercat/pp-ocr-det")
    mercat("follow", "mercat")
    assert f"mercat/minilm@{version}" in mercat("feed")
    assert "mercat/" in mercat("explore", "recommended")
    mercat("explore", "preferences", "--no-recommendations")
    assert "off" in mercat("explore", "preferences")
    mercat("reindex", fails=True)
