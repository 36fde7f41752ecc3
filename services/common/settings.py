"""Typed settings. A process reads all it needs from `MERCAT_*` variables, then from `$MERCAT_HOME/mercat.toml`,
then from the defaults written beside each field; nothing is read when a module is imported.

A service with settings of its own subclasses `Settings` in its `settings.py`, where `mercat config` finds it.
"""

import importlib
import importlib.util
import os
import pkgutil
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, JsonValue, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from services.common.secrets.sources import SecretUnavailable, resolve

PREFIX = "MERCAT_"
HOME_FILE = "mercat.toml"
DEFAULT_HOME = ".mercat"


class SettingsError(Exception):
    """A setting has a value it cannot have. The text names the variable and what is wrong."""


def option(default: Any, description: str, *, unit: str = "", secret: bool = False, **rules: Any) -> Any:
    """A setting: its default, what it means, the unit of its number, and whether its value must not be shown.
    `rules` are pydantic's (`ge`, `le`, `pattern`, …)."""
    extra: dict[str, JsonValue] = {"unit": unit, "secret": secret}
    return Field(default, description=description, repr=not secret, json_schema_extra=extra, **rules)


class Settings(BaseSettings):
    """What every process of the platform is told by its environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, validate_default=True
    )

    home: Path = option(Path(DEFAULT_HOME), "folder of all state of this installation")
    postgres_url: str = option("", "PostgreSQL (15 or later, pgvector); empty: the embedded one", secret=True)
    redis_url: str = option("", "Redis (7 or later) or Valkey; empty: the embedded one", secret=True)
    nats_url: str = option("", "NATS with JetStream; empty: the embedded one", secret=True)
    storage_url: str = option("", "where artifacts lie: file:///… or s3://…; empty: a folder in the home", secret=True)
    model_repository: Path | None = option(
        None, "folder of published models for Triton; empty: `repository` in the home"
    )
    control: str = option("", "host:port of the control process")
    inference: str = option("", "gRPC target of the inference workers, for what Mercat itself asks of them")
    internal_token: str = option("", "proves a call to come from Mercat itself; empty: the home's", secret=True)
    internal_ca: Path | None = option(
        None,
        "authority (PEM) of the certificates that Mercat's processes show each other; empty: they talk without TLS",
    )
    internal_certificate: Path | None = option(None, "certificate (PEM) that this process shows the others")
    internal_key: Path | None = option(None, "key (PEM) of that certificate")
    jwt_key_file: Path | None = option(None, "Ed25519 key (PEM) that signs access tokens; empty: the home's")
    admin_email: str = option("admin@mercat.localhost", "email address of the first administrator")
    admin_password: str = option("", "password of the first administrator; empty: the home's", secret=True)
    verified_emails: str = option("", "email addresses that need no verification, separated by commas")
    grpc: str = option("", "host:port where clients reach the front door")
    public_url: str = option(
        "", "where browsers and OAuth's clients reach this platform, https://…; empty: http:// and the front door",
        pattern=r"^(https?://[^/?#]+)?$",
    )  # fmt: skip
    limit_scale: float = option(1.0, "multiplies every rate limit and its burst", gt=0)
    limit_share: float = option(1.0, "this process's share of the rate limits while Redis is gone", gt=0, le=1)
    released_name_days: int = option(
        180, "how long a handle that was given up, and the address of a model that moved away, are kept from everybody "
        "else; 0: for ever", unit="days", ge=0, le=36_500,
    )  # fmt: skip
    production: bool = option(
        False, "open to a network: the port without TLS serves this machine alone, contracts are not described by "
        "reflection, and network addresses have a rate",
    )  # fmt: skip
    test_clock: bool = option(False, "time can be moved ahead, by `mercat clock`: for tests and sandboxes")
    reuse_port: bool = option(False, "let a process that takes this one's place listen at the same address")
    ready_file: Path | None = option(None, "made when this process serves; empty: none")
    process: str = option("", "name of this process, such as worker-0")
    text_context: int = option(2048, "most tokens of prompt and answer, where the model takes as many", ge=16)
    trace_endpoint: str = option("", "OpenTelemetry collector, OTLP over gRPC: http://127.0.0.1:4317; empty: none")
    trace_ratio: float = option(0.01, "share of calls that are traced without their caller asking", ge=0, le=1)
    log_level: str = option("INFO", "least severe line that is logged", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @property
    def url(self) -> str:
        """Where this platform is reached over HTTP: the issuer of its access tokens."""
        return self.public_url or f"http://{self.grpc or '127.0.0.1:8000'}"

    @property
    def repository(self) -> Path:
        """The folder of published models, for Triton and for the workers that see it."""
        return (self.model_repository or self.home / "repository").absolute()

    @field_validator("*", mode="before")
    @classmethod
    def _secret(cls, value: Any, info: ValidationInfo) -> Any:
        """Of a secret the place may be said instead: `file:/path`, `env:NAME` or `vault:PATH#FIELD`."""
        extra = cls.model_fields[info.field_name or ""].json_schema_extra
        if not isinstance(value, str) or not isinstance(extra, dict) or not extra.get("secret"):
            return value
        try:
            return resolve(value)
        except SecretUnavailable as error:
            raise ValueError(str(error)) from None

    @field_validator("home", mode="after")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _HomeFile(settings_cls)


class _HomeFile(PydanticBaseSettingsSource):
    """The flat `name = value` lines of `$MERCAT_HOME/mercat.toml`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        chosen = self.current_state.get("home") or os.environ.get(f"{PREFIX}HOME") or DEFAULT_HOME
        known = self.settings_cls.model_fields
        return {name: value for name, value in read_home_file(Path(chosen)).items() if name in known}


def read_home_file(home: Path) -> dict[str, Any]:
    """Settings written in a home. SettingsError when the file is not TOML."""
    path = home.expanduser() / HOME_FILE
    try:
        return tomllib.loads(path.read_text())
    except OSError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from error


S = TypeVar("S", bound=Settings)


def load(cls: type[S], **values: Any) -> S:
    """The settings as the environment has them, `values` first. SettingsError instead of a stack of violations."""
    try:
        return cls(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(problem) for problem in error.errors())) from error


def _sentence(problem: Mapping[str, Any]) -> str:
    name = PREFIX + str(problem["loc"][0]).upper() if problem["loc"] else "settings"
    return f"{name}={problem.get('input')!s}: {problem['msg'].removeprefix('Value error, ')}"


@dataclass(frozen=True)
class Row:
    """One setting as `mercat config` prints it."""

    group: str
    env: str
    value: str
    source: str  # default, environment or home
    unit: str
    description: str


def describe(settings: Settings, *, group: str, inherited: bool = False) -> Iterator[Row]:
    """A row for each field, without secrets; those of the base class only when `inherited`."""
    in_home = read_home_file(settings.home)
    environment = {name.upper() for name, value in os.environ.items() if value}
    for name, field in type(settings).model_fields.items():
        if name in Settings.model_fields and not inherited:
            continue
        env = PREFIX + name.upper()
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        source = "environment" if env in environment else "home" if name in in_home else "default"
        value = _shown(getattr(settings, name), secret=bool(extra.get("secret")))
        yield Row(group, env, value, source, str(extra.get("unit", "")), field.description or "")


def _shown(value: Any, *, secret: bool) -> str:
    if value is None or value == "":
        return ""
    if secret and "://" in str(value):
        return re.sub(r"(?<=://)([^/@]*)@", "***@", str(value))
    return "***" if secret else str(value)


def discover() -> dict[str, type[Settings]]:
    """Every settings class of the installation by the name of its package: `services.<name>.settings` and
    `gateway_rest.settings`, where they exist."""
    import services

    packages = [f"services.{module.name}" for module in pkgutil.iter_modules(services.__path__) if module.ispkg]
    found = {package: settings_of(package) for package in [*packages, "gateway_rest"] if package != "services.common"}
    return {package.rpartition(".")[2]: cls for package, cls in found.items() if cls is not Settings}


def settings_of(package: str) -> type[Settings]:
    """The settings class of one package, which is imported; those that all have where it has none of its own."""
    if importlib.util.find_spec(package) is None or importlib.util.find_spec(f"{package}.settings") is None:
        return Settings
    module = importlib.import_module(f"{package}.settings")
    own = [
        value for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Settings) and value.__module__ == module.__name__
    ]  # fmt: skip
    return own[-1] if own else Settings


def unknown_variables(known: set[str]) -> list[str]:
    """`MERCAT_*` variables of the environment that no setting reads: mistyped, most likely."""
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
