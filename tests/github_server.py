"""What GitHub answers somebody who signs in with it, as its documentation has it: `python -m tests.github_server PORT`.

Of users it knows those that were put at /users/LOGIN, as JSON of `id`, `name` and `emails`. Whoever opens the page of
authorization is the one of `login` in its query, at once."""

import base64
import hashlib
import json
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

CLIENT, SECRET = "github-client", "github-secret"


class GitHub(BaseHTTPRequestHandler):
    users: ClassVar[dict[str, dict[str, Any]]] = {}
    codes: ClassVar[dict[str, dict[str, str]]] = {}
    tokens: ClassVar[dict[str, str]] = {}

    def _say(self, value: object, status: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, said in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
            self.send_header(name, said)
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def do_PUT(self) -> None:
        self.users[self.path.rpartition("/")[2]] = json.loads(self._body())
        self._say({})

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/login/oauth/authorize":
            if asked["client_id"] != CLIENT or asked["scope"] != "read:user user:email":
                return self._say({}, 404)
            code = secrets.token_hex(10)
            self.codes[code] = asked
            back = urlencode({"code": code, "state": asked["state"]})
            return self._say({}, 302, location=f"{asked['redirect_uri']}?{back}")
        login = self.tokens.get(self.headers.get("authorization", "").removeprefix("Bearer "))
        if login is None:
            return self._say({"message": "Bad credentials"}, 401)
        user = self.users[login]
        if parts.path == "/api/v3/user":
            return self._say({"login": login, "id": user["id"], "name": user.get("name"), "email": None})
        return self._say(user["emails"]) if parts.path == "/api/v3/user/emails" else self._say({}, 404)

    def do_POST(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(self._body().decode()).items()}
        basic = base64.b64decode(self.headers.get("authorization", "").removeprefix("Basic ")).decode()
        begun = self.codes.pop(asked.get("code", ""), None)
        digest = hashlib.sha256(asked.get("code_verifier", "").encode()).digest()
        proved = begun and base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == begun.get("code_challenge")
        if self.path != "/login/oauth/access_token" or basic != f"{CLIENT}:{SECRET}" or not begun or not proved:
            return self._say({"error": "bad_verification_code", "error_description": "it is incorrect or expired"})
        token = "gho_" + secrets.token_hex(18)
        self.tokens[token] = begun["login"]
        return self._say({"access_token": token, "scope": "read:user,user:email", "token_type": "bearer"})

    def log_message(self, *_: Any) -> None:
        """Nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), GitHub).serve_forever()
