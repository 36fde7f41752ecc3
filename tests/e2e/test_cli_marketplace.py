"""The marketplace of the demo at the command line, as somebody uses it who has just logged in; what publishers bring
is in test_walk."""

import json
import time

from tests.platform import USD, Platform


def test_looking_around(platform: Platform) -> None:
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
    assert "it takes a review" in mercat("explore", "top", "rated", "--task", "text-detection")
    assert "call it first" in mercat("reviews", "write", "mercat/minilm", "--rating", "5", fails=True)
    mercat("embed", "mercat/minilm", "a sentence")
    deadline = time.monotonic() + 5
    review = ("reviews", "write", "mercat/minilm", "--rating", "4", "-m", "small [and] quick")
    while platform.command(*review, MERCAT_API_KEY=key).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    made = json.loads(mercat("collections", "create", "reading", "--json"))
    identifier = made.get("collectionId") or made["collection_id"]
    assert "mercat/pp-ocr-det" in mercat("collections", "add", identifier, "mercat/pp-ocr-det")
    assert "mercat/" in mercat("explore", "recommended")
    mercat("explore", "preferences", "--no-recommendations")
    assert "off" in mercat("explore", "preferences")
    mercat("reindex", fails=True)
