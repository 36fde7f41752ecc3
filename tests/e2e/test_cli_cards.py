"""From a file to a card, a signature and a lineage, by the command line alone."""

import json
from pathlib import Path

from tests import graphs
from tests.platform import Platform


def test_from_a_file_to_what_is_known_of_it(platform: Platform, tmp_path: Path) -> None:
    key = platform.publisher().api_key

    def mercat(*args: str, fails: bool = False, **env: str) -> str:
        done = platform.command(*args, **{"MERCAT_API_KEY": key, **env})
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    artifact, written, card = (tmp_path / name for name in ("adder.onnx", "model.yaml", "card.md"))
    artifact.write_bytes(graphs.addition())
    assert "takes" in mercat("init", str(artifact))
    push = ("models", "push", str(written))
    assert "needs --summary, --category, --task, --license" in mercat(*push, fails=True)
    said = written.read_text().replace('summary: ""', 'summary: "Adds"').replace('category: ""', "category: other")
    written.write_text(said.replace('task: ""', "task: arithmetic"))
    card.write_text(card.read_text().replace('license: ""', "license: nonsense"))
    assert "card.license: is no SPDX expression" in mercat(*push, fails=True)
    said = card.read_text().replace("license: nonsense", "license: mit").replace("language: []", "language: no")
    card.write_text(said.replace("base_model: []", "base_model: mercat/minilm"))
    signing = tmp_path / "signing.pem"
    mercat("models", "keys", "create", "laptop", "--out", str(signing))
    assert signing.stat().st_mode & 0o777 == 0o600
    commit = "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"
    made = json.loads(
        mercat(*push, "--attest", str(signing), "--source", "https://git.example/a", "--commit", commit, "--json")
    )["version"]
    model, reference = made["model"], f"{made['model']}@1.0.0"
    assert made["settings"]["maxBatchSize"] == 16
    assert made["provenance"]["sourceCommit"] == commit

    shown = mercat("models", "card", model)
    for part in ("MIT", "made from", "mercat/minilm", "# adder", "- takes `a INT64 [N]`"):
        assert part in shown
    assert "<h1>adder</h1>" in mercat("models", "card", model, "--html")
    assert commit in mercat("models", "show", reference)
    tree = mercat("models", "lineage", model)
    assert "mercat/minilm" in tree
    assert "nothing that cards name" in tree

    got = tmp_path / "got.onnx"
    mercat("models", "download", reference, "--to", str(got))
    assert "Genuine" in mercat("models", "verify", str(got), reference)
    listed = json.loads(mercat("models", "keys", "list", "--json"))["keys"]
    public = tmp_path / "public.pem"
    public.write_text(listed[0]["publicKey"])
    offline = {"MERCAT_SERVER": "127.0.0.1:1", "MERCAT_HOME": str(tmp_path / "elsewhere")}
    verify = ("models", "verify", str(got), "--key", str(public))
    assert "Genuine" in mercat(*verify, **offline)
    with got.open("ab") as file:
        file.write(b"\0")
    assert "is about another file" in mercat(*verify, fails=True, **offline)
    assert "is not the artifact" in mercat("models", "verify", str(got), reference, fails=True)
    mercat("models", "keys", "revoke", listed[0]["fingerprint"])
    assert "is not signed with a key that is trusted" in mercat(
        "models", "verify", str(artifact), reference, fails=True
    )  # fmt: skip
