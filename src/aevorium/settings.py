"""Settings: flag > environment > `aevorium.toml` > default, and where each value came from.

The only module that reads the environment.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_data_path, user_log_path
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from aevorium.errors import ConfigError
from aevorium.state.roles import Role

__all__ = [
    "SETTINGS_FILE",
    "Origin",
    "Settings",
    "SettingsWithOrigin",
    "environment_names",
    "load_settings",
    "log_folder",
]

SETTINGS_FILE = Path("aevorium.toml")
"""Looked for in the current folder."""


_NODE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _named(name: str, *aliases: str) -> AliasChoices:
    return AliasChoices(f"AEVORIUM_{name}", *aliases)


_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")
"""As a browser sends it: lower case, and no path."""


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _default_key_file() -> Path:
    return user_data_path("aevorium", appauthor=False) / "checkpoint.key"


def _default_node_home() -> Path:
    if os.environ.get("AEVORIUM_LAUNCHER"):
        return Path("workspace") / "node-home"
    return user_data_path("aevorium", appauthor=False) / "nodes"


class Settings(BaseSettings):
    """Everything that a person can choose once instead of on every command line."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, env_ignore_empty=True, toml_file=SETTINGS_FILE
    )

    epsilon: float = Field(
        default=3.0,
        gt=0,
        validation_alias=_named("EPSILON"),
        description="Target ε of a run, end to end; 'inf' trains without privacy.",
    )
    delta: float = Field(default=1e-5, gt=0, lt=1, validation_alias=_named("DELTA"), description="Target δ of a run.")
    recipe: Literal["warm-start", "dp-sgd"] = Field(
        default="warm-start",
        validation_alias=_named("RECIPE"),
        description="How the model is trained: warm-start or dp-sgd.",
    )
    trust: Literal["local", "secure-aggregation"] = Field(
        default="local",
        validation_alias=_named("TRUST"),
        description="Who may see what a node sends: local (everyone) or secure-aggregation (their sum alone).",
    )
    workspace: Path = Field(
        default=Path("workspace"),
        validation_alias=_named("WORKSPACE"),
        description="Where results are written and read.",
    )
    key_file: Path = Field(
        default_factory=_default_key_file,
        validation_alias=_named("KEY_FILE"),
        description="The keys of the checkpoints; made at the first run, readable by its owner only.",
    )
    key_source: Literal["file", "keyring"] = Field(
        default="file",
        validation_alias=_named("KEY_SOURCE"),
        description="Where the keys of the checkpoints are kept: file (key_file) or keyring (the system's).",
    )
    key: SecretStr | None = Field(
        default=None,
        validation_alias=_named("KEY"),
        description="The keys of the checkpoints themselves, newest first, separated by commas; in the environment "
        "alone, and never shown. Wins over key_source.",
    )
    audit_key_file: Path | None = Field(
        default=None,
        validation_alias=_named("AUDIT_KEY_FILE"),
        description="The key that signs the server's audit log; unset = audit.key beside key_file.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**63,
        validation_alias=_named("SEED"),
        description="Fixes initialisation and generated rows; never the privacy noise.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        validation_alias=_named("DEVICE"),
        description="Where models are trained and rows drawn: auto (a CUDA device if there is one), cpu or cuda.",
    )
    num_rounds: int = Field(
        default=5,
        ge=1,
        validation_alias=_named("NUM_ROUNDS", "NUM_ROUNDS"),
        description="Rounds of private training, if there is any (docs/RECIPE.md).",
    )
    training_epochs: int | None = Field(
        default=None,
        ge=1,
        validation_alias=_named("TRAINING_EPOCHS", "TRAINING_EPOCHS"),
        description="Passes over a node's records in each round, in expectation; unset = the recipe's own "
        "(dp-sgd: 20; warm-start: 200 steps in all rounds, where training pays). Setting it asks for training.",
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        validation_alias=_named("BATCH_SIZE", "BATCH_SIZE"),
        description="Expected number of records in a step; unset = the recipe's own (dp-sgd: 32; warm-start: a tenth "
        "of the records, 4,096 at most). Setting it asks for training.",
    )
    pretraining_steps: int | None = Field(
        default=None,
        ge=0,
        validation_alias=_named("PRETRAINING_STEPS"),
        description="Recipe warm-start: steps of training on the surrogate; unset = by a public rule (docs/RECIPE.md).",
    )
    dp_noise_multiplier: float | None = Field(
        default=None,
        ge=0,
        validation_alias=_named("DP_NOISE_MULTIPLIER", "DP_NOISE_MULTIPLIER"),
        description="DP-SGD's noise, used as it is; unset = calibrated from the target ε.",
    )

    server_address: str = Field(
        default="127.0.0.1:8091",
        pattern=r"^[^\s/]+:\d{1,5}$",
        validation_alias=_named("SERVER_ADDRESS", "SERVER_ADDRESS"),
        description="Where a node finds its server: host and port.",
    )
    server_port: int = Field(
        default=8091,
        ge=1,
        le=65535,
        validation_alias=_named("SERVER_PORT", "SERVER_PORT"),
        description="Port on which the server waits for nodes.",
    )
    min_nodes: int = Field(
        default=2,
        ge=1,
        validation_alias=_named("MIN_NODES"),
        description="Nodes that the server waits for, and valid replies without which a phase fails.",
    )
    api_host: str = Field(
        default="127.0.0.1",
        validation_alias=_named("API_HOST"),
        description="Address that the API listens on; any but that of this machine takes an API key or an issuer.",
    )
    api_port: int = Field(
        default=8000, ge=1, le=65535, validation_alias=_named("API_PORT"), description="Port of the API."
    )
    api_url: str = Field(
        default="http://localhost:8000",
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$",
        validation_alias=_named("API_URL"),
        description="Where the dashboard finds the API, such as https://aevorium.hospital.example.",
    )
    nodes: Annotated[dict[str, Path], NoDecode] = Field(
        default={},
        validation_alias=_named("NODES"),
        description="Tables of the nodes on which the API's own worker conducts runs: NAME=FILE, separated by commas; "
        "unset = two hospitals of simulated patients.",
    )
    nodes_policy: Path | None = Field(
        default=None,
        validation_alias=_named("NODES_POLICY"),
        description="Policy file of those nodes; unset = ε = 10 in all, at δ = 1e-5.",
    )
    database: SecretStr | None = Field(
        default=None,
        validation_alias=_named("DATABASE"),
        description="URL of the server's database: sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME; "
        "unset = api.db in the workspace.",
    )
    api_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        validation_alias=_named("API_ORIGINS"),
        description="Web origins whose pages may call the API from a browser, separated by commas; unset = none.",
    )
    api_rate: str = Field(
        default="600/minute",
        pattern=r"^(off|[1-9]\d{0,5}/(second|minute|hour|day))$",
        validation_alias=_named("API_RATE"),
        description="Requests that the API answers to one key, subject or address, such as 600/minute; or off.",
    )
    oidc_issuer: str | None = Field(
        default=None,
        validation_alias=_named("OIDC_ISSUER"),
        description="The issuer whose tokens the API accepts (OpenID Connect), as an https address.",
    )
    oidc_audience: str | None = Field(
        default=None,
        min_length=1,
        validation_alias=_named("OIDC_AUDIENCE"),
        description="What a token must name as its audience; needed with oidc_issuer.",
    )
    oidc_role_claim: str = Field(
        default="roles",
        min_length=1,
        validation_alias=_named("OIDC_ROLE_CLAIM"),
        description="The claim of a token that holds its roles; dots lead into objects, as in realm_access.roles.",
    )
    oidc_roles: Annotated[dict[str, Role], NoDecode] = Field(
        default={},
        validation_alias=_named("OIDC_ROLES"),
        description="What the claim's values mean, as in 'it-staff=engineer, data-office=steward'; unset = the names "
        "of the roles themselves.",
    )
    oidc_client: str | None = Field(
        default=None,
        min_length=1,
        validation_alias=_named("OIDC_CLIENT"),
        description="The name under which the issuer knows the dashboard (client id); set, people sign in there.",
    )
    oidc_client_secret: SecretStr | None = Field(
        default=None,
        validation_alias=_named("OIDC_CLIENT_SECRET"),
        description="What the dashboard proves itself to the issuer with; in the environment alone, and never shown. "
        "Wins over oidc_client_secret_file.",
    )
    oidc_client_secret_file: Path | None = Field(
        default=None,
        validation_alias=_named("OIDC_CLIENT_SECRET_FILE"),
        description="The file that holds it, such as a mounted secret.",
    )
    oidc_scope: str = Field(
        default="openid profile email",
        pattern=r"^([\x21\x23-\x5b\x5d-\x7e]+ )*openid( [\x21\x23-\x5b\x5d-\x7e]+)*$",
        validation_alias=_named("OIDC_SCOPE"),
        description="What the dashboard asks the issuer for; some issuers take the API's own scope here.",
    )
    oidc_token: Literal["access", "id"] = Field(
        default="access",
        validation_alias=_named("OIDC_TOKEN"),
        description="Which of the issuer's tokens the dashboard hands to the API: access, or id where access tokens "
        "are no JWT of this audience (oidc_audience is then the client id).",
    )
    dashboard_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/?#@]+$",
        validation_alias=_named("DASHBOARD_URL"),
        description="Where browsers find the dashboard, such as https://study.example.org; people come back there from "
        "the issuer. Unset = this machine.",
    )
    log_json: bool = Field(
        default=True,
        validation_alias=_named("LOG_JSON"),
        description="Whether the API logs each request as a line of JSON, or in a form for people.",
    )
    timeout: float = Field(
        default=3600.0,
        gt=0,
        validation_alias=_named("TIMEOUT"),
        description="Seconds after which a node that has not answered a request counts as lost.",
    )
    node_home: Path = Field(
        default_factory=_default_node_home,
        validation_alias=_named("NODE_HOME"),
        description="Where real nodes keep ledger, policy and key, one folder per name.",
    )

    @field_validator("nodes", mode="before")
    @classmethod
    def _split_nodes(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        nodes: dict[str, str] = {}
        for part in _parts(value):
            name, _, file = (text.strip() for text in part.partition("="))
            if not name or not file or name in nodes:
                raise ValueError("It should be NAME=FILE,NAME=FILE, each name once")
            nodes[name] = file
        return nodes

    @field_validator("nodes")
    @classmethod
    def _check_names(cls, value: dict[str, Path]) -> dict[str, Path]:
        if any(not _NODE_NAME.fullmatch(name) or name.endswith(".") for name in value):
            raise ValueError(
                "A node's name may hold letters, digits, '.', '_' and '-', 64 at most, and end with no dot"
            )
        return value

    @field_validator("dp_noise_multiplier")
    @classmethod
    def _check_finite(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError("It should be a finite number")
        return value

    @field_validator("api_origins", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        return _parts(value) if isinstance(value, str) else value

    @field_validator("api_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_ORIGIN.fullmatch(origin) for origin in value):
            raise ValueError("It should hold origins such as https://portal.example, and no wildcard")
        return value

    @field_validator("oidc_roles", mode="before")
    @classmethod
    def _split_table(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.rpartition("=") for part in _parts(value)]
        return {name.strip(): role.strip() for name, _, role in pairs}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flag, environment, file; the first that has a value wins."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


@dataclass(frozen=True)
class Origin:
    """Where a value came from.

    Attributes:
        kind: "flag", "environment", "file" or "default".
        text: The same for people, with the name of the flag, variable or file.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class SettingsWithOrigin:
    """The settings in force.

    Attributes:
        values: The settings.
        origins: Where each came from, by name.
    """

    values: Settings
    origins: Mapping[str, Origin]


def environment_names(name: str) -> tuple[str, ...]:
    """The environment variables of a setting; the first that is set counts."""
    alias = Settings.model_fields[name].validation_alias
    return tuple(str(choice) for choice in alias.choices) if isinstance(alias, AliasChoices) else ()


def log_folder() -> Path:
    """Where the log of a failure goes."""
    return user_log_path("aevorium", appauthor=False)


def load_settings(flags: Mapping[str, object] | None = None) -> SettingsWithOrigin:
    """Reads the settings.

    Args:
        flags: Values given on the command line, by the name of the setting; None means not given.

    Raises:
        ConfigError: CONFIG_INVALID, naming the flag, variable or entry; CONFIG_CONFLICT for a fixed noise together
            with a chosen ε.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    file = _read_file()
    origins = {name: _origin(name, given=given, file=file) for name in Settings.model_fields}
    try:
        values = Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise _invalid(error, origins) from error
    if values.dp_noise_multiplier is not None and origins["epsilon"].kind != "default":
        raise ConfigError(
            "CONFIG_CONFLICT",
            f"ε ({origins['epsilon'].text}) and the noise multiplier ({origins['dp_noise_multiplier'].text}) are both "
            "given. Each determines the other.",
        )
    return SettingsWithOrigin(values=values, origins=origins)


def _read_file() -> dict[str, Any]:
    try:
        with SETTINGS_FILE.open("rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "It cannot be read as UTF-8 text"
        raise ConfigError(
            "CONFIG_INVALID", f"The settings file {str(SETTINGS_FILE)!r} is not valid TOML. {reason}."
        ) from error
    # Names compare without regard to case, as pydantic-settings does for variables.
    for name in ("key", "oidc_client_secret"):
        found = next((entry for entry in content if entry.upper() in (name.upper(), *environment_names(name))), None)
        if found is not None:
            raise ConfigError(
                "CONFIG_INVALID",
                f"The settings file {str(SETTINGS_FILE)!r} holds {found!r}. A file of settings is no place for a"
                " secret.",
                hint=f"Put it into a file of its own ({environment_names(name)[0]}_FILE), or into the environment.",
            )
    return content


def _origin(name: str, *, given: Mapping[str, object], file: Mapping[str, Any]) -> Origin:
    if name in given:
        return Origin("flag", f"--{_FLAGS.get(name, name.replace('_', '-'))}")
    # Names of variables compare without regard to case, as pydantic-settings does.
    variables = {variable.upper(): value for variable, value in os.environ.items()}
    for variable in environment_names(name):
        if variables.get(variable):
            return Origin("environment", variable)
    for entry in (*environment_names(name), name):
        if entry in file:
            return Origin("file", f"{entry} in {SETTINGS_FILE}")
    return Origin("default", "default")


_FLAGS: Mapping[str, str] = {
    "num_rounds": "rounds",
    "training_epochs": "epochs",
    "dp_noise_multiplier": "noise-multiplier",
    "server_address": "server",
    "server_port": "port",
    "node_home": "home",
}
"""Flags that are not named like their setting."""


def _invalid(error: ValidationError, origins: Mapping[str, Origin]) -> ConfigError:
    problem = error.errors(include_url=False)[0]
    where = str(problem["loc"][0]) if problem["loc"] else ""
    name = next((name for name in origins if where in (name, *environment_names(name))), None)
    if name is None:
        return ConfigError(
            "CONFIG_INVALID",
            f"The settings file {str(SETTINGS_FILE)!r} holds {where!r}. There is no such setting.",
            hint="Type: aevorium config show",
        )
    value, origin = problem["input"], origins[name].text
    reason = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "It should be")
    return ConfigError("CONFIG_INVALID", f"{origin} = {value!r} is not possible. {reason}.")
