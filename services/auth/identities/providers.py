"""Who people may sign in with, as the operator lists them."""

import json
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.common.settings import SettingsError

_PRESETS = {
    "google": {"name": "Google", "issuer": "https://accounts.google.com"},
    "github": {"name": "GitHub", "issuer": "https://github.com", "kind": "github"},
}
_HERE = ("localhost", "127.0.0.1", "::1")


class Provider(BaseModel):
    """An OpenID provider, or a GitHub, of which the issuer is the address. `trusted`: addresses that it calls verified
    are its to give, so that they prove whose an account here is. `outside`: the operator did not name it, so it must
    be on the public network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern="^[a-z0-9](?:[a-z0-9_-]{0,30}[a-z0-9])?$")
    client_id: str = Field(min_length=1)
    client_secret: str = Field(default="", repr=False)
    issuer: str
    name: str
    kind: Literal["oidc", "github"] = "oidc"
    scopes: list[str] = []
    trusted: bool = False
    outside: bool = False

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: object) -> object:
        if isinstance(data, dict):
            return {"name": data.get("id"), **_PRESETS.get(str(data.get("id")), {}), **data}
        return data

    @model_validator(mode="after")
    def _secure(self) -> "Provider":
        url = urlsplit(self.issuer)
        if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _HERE):
            raise ValueError("issuer must be https://…")
        if url.query or url.fragment:
            raise ValueError("issuer has no query")
        return self

    @property
    def asked(self) -> str:
        """The scopes that are asked for."""
        usual = ["read:user", "user:email"] if self.kind == "github" else ["openid", "email", "profile"]
        return " ".join(self.scopes or usual)


def read(text: str) -> dict[str, Provider]:
    """The providers of a setting, by id. Raises SettingsError."""
    try:
        listed = json.loads(text) if text.strip() else []
        providers = [Provider.model_validate(one) for one in listed]
    except ValidationError as e:
        problem = e.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "provider"
        raise SettingsError(f"MERCAT_IDENTITY_PROVIDERS: {where}: {problem['msg']}") from None
    except (ValueError, TypeError):
        raise SettingsError("MERCAT_IDENTITY_PROVIDERS must be a JSON list of objects.") from None
    return {provider.id: provider for provider in providers}
