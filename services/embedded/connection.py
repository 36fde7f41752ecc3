"""`connection.json`: the addresses and the demo credentials, for the command line, the SDKs and the tests."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from services.embedded.server import write_private


class Account(BaseModel):
    """A demo account. `api_key` is empty until the demo has made one."""

    email: str
    password: str = Field(repr=False)
    api_key: str = Field("", repr=False)


class Tls(BaseModel):
    """`ca` is the file with the authority to trust."""

    address: str
    ca: str


class Connection(BaseModel):
    """What a client needs to know."""

    model_config = ConfigDict(validate_assignment=True)

    grpc: str
    rest: str
    console: str
    tls: Tls | None = None
    accounts: dict[str, Account] = {}
    models: list[str] = []

    @property
    def complete(self) -> bool:
        """Whether the demo has done its work."""
        return bool(self.models) and all(account.api_key for account in self.accounts.values())

    def save(self, path: Path) -> None:
        """Readable by the owner alone."""
        write_private(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Connection | None":
        """None when there is none, or none that makes sense."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            return None
