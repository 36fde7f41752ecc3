"""A Vault for tests, as far as Mercat asks: KV (version 2), transit and AppRole, by the contract of Vault's HTTP API.

https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2, …/secret/transit, …/auth/approle. Real AES-256-GCM, with
versions; tokens are checked. What it was asked is kept, for tests of what leaves this machine."""

import base64
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ROOT = "hvs.root"


@dataclass
class Vault:
    """What a test says to the server, and what it knows. `sealed`: it answers nobody."""

    url: str = ""
    tokens: set[str] = field(default_factory=lambda: {ROOT})
    roles: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)  # by MOUNT/PATH
    keys: dict[str, list[bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    sealed: bool = False

    def answer(self, method: str, path: str, token: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.asked.append((method, path, body))
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if path == "auth/approle/login":
            if self.roles.get(body.get("role_id", "")) != body.get("secret_id"):
                return 400, {"errors": ["invalid role or secret ID"]}
            made = f"hvs.{os.urandom(8).hex()}"
            self.tokens.add(made)
            return 200, {"auth": {"client_token": made, "lease_duration": 3600, "renewable": True}}
        if token not in self.tokens:
            return 403, {"errors": ["permission denied"]}
        parts = path.split("/")
        if parts[0] == "transit":
            return self._transit(method, parts[1:], body)
        mount, data, *rest = parts
        found = self.secrets.get(f"{mount}/{'/'.join(rest)}")
        if method != "GET" or data != "data" or found is None:
            return 404, {"errors": []}
        metadata = {"version": 1, "destroyed": False, "deletion_time": ""}
        return 200, {"data": {"data": found, "metadata": metadata}}

    def _transit(self, method: str, parts: list[str], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        what, name = parts[0], parts[1]
        keys = self.keys.get(name)
        if keys is None:
            return 400, {"errors": ["encryption key not found"]}
        if what == "keys" and parts[2:] == ["rotate"]:
            keys.append(AESGCM.generate_key(256))
            return 200, {"data": {"latest_version": len(keys)}}
        if what == "keys" and method == "GET":
            return 200, {"data": {"name": name, "type": "aes256-gcm96", "latest_version": len(keys)}}
        if what == "encrypt":
            nonce = os.urandom(12)
            sealed = nonce + AESGCM(keys[-1]).encrypt(nonce, base64.b64decode(body["plaintext"]), None)
            return 200, {"data": {"ciphertext": f"vault:v{len(keys)}:{base64.b64encode(sealed).decode()}"}}
        _, version, text = body["ciphertext"].split(":")
        sealed = base64.b64decode(text)
        try:
            plain = AESGCM(keys[int(version[1:]) - 1]).decrypt(sealed[:12], sealed[12:], None)
        except (InvalidTag, IndexError):
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": base64.b64encode(plain).decode()}}


@contextmanager
def serving() -> Iterator[Vault]:
    """The server in a thread, ended afterwards."""
    vault = Vault()

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(size) or b"{}")
            path = self.path.partition("?")[0].removeprefix("/v1/")
            status, answer = vault.answer(self.command, path, self.headers.get("X-Vault-Token", ""), body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _handle  # noqa: N815

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    vault.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield vault
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
