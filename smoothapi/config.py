"""Settings: argument > SMOOTHAPI_* variable > smoothapi.toml > [tool.smoothapi] > default.

Both files are looked for in the working directory. `resolve` says of each value where it came
from, so that `smoothapi config` can show it.
"""

from __future__ import annotations

import logging
import os
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from smoothapi.errors import UsageError
from smoothapi.radius import WantedRadius

FILE = "smoothapi.toml"
# Options of adapters are shown only where they cannot hold a secret.
_HARMLESS = {
    "region",
    "region_name",
    "profile",
    "profile_name",
    "operation",
    "model",
    "as_of",
    "transport",
    "features",
    "language",
    "model_version",
}
_MAY_BE_SECRET = ("providers", "prices")
_log = logging.getLogger("smoothapi")


_PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Every setting, with its range and its default."""

    model_config = SettingsConfigDict(
        env_prefix="SMOOTHAPI_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    provider: str = Field("mock", description="the adapter's name")
    sigma: float = Field(0.25, gt=0.0, le=1.5, description="noise level, of the [0, 1] range")
    radius: float | str = Field(
        0.25, description="L2 radius to certify (0.25, 0.5 native, 0.1/255 rms), or largest"
    )
    alpha: float = Field(0.001, gt=0.0, lt=0.5, description="chance of a wrong certificate")
    max_votes: int = Field(1000, ge=1, description="most votes for one certificate")
    budget: str | None = Field(None, description="hard limit of a session: 500, $2 or 500,$2")
    size: int = Field(224, ge=1, le=4096, description="shorter side of the working image")
    classes: Path | None = Field(None, description="TOML or JSON file of your classes")
    plain: bool = Field(True, description="ask for the label of the working image itself, too")
    denoiser: str = Field("default", description="default, small, none, or a file of one")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    codec: Literal["png", "jpeg"] = Field("png", description="how variants are encoded")
    concurrency: int = Field(8, ge=1, le=256, description="most requests in flight")
    attempts: int = Field(5, ge=1, le=100, description="most sends of one variant")
    deadline: _PositiveFloat = Field(300.0, description="seconds until a variant is given up")
    max_failed: float = Field(0.1, ge=0.0, le=1.0, description="share of failures that stops a run")
    partial: bool = Field(False, description="buy what the budget allows, though it is not enough")
    record: Path | None = Field(None, description="file that answers are also written to")
    home: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("smoothapi")),
        description="folder of the noise key and the answers",
    )
    prices: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="price lists that replace the adapters' own, by name"
    )
    providers: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="options of adapters, by name"
    )

    @field_validator("budget", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("radius")
    @classmethod
    def _radius(cls, value: float | str) -> float | str:
        if value == "largest":
            return value
        try:
            asked = WantedRadius.parse(value)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return asked.value if asked.unit == "working" else str(value)

    @field_validator("home", "classes")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_others: PydanticBaseSettingsSource,
        **_more: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments only: `resolve` reads the other sources, to know where values are from."""
        del settings_cls
        return (init_settings,)


@dataclass(frozen=True)
class Resolved:
    """Settings, and for each where its value came from.

    Attributes:
        settings: the values.
        origins: name -> "argument", the variable's name, a file's name, or "default".
    """

    settings: Settings
    origins: dict[str, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (name, value, origin) of every setting, with secrets masked."""
        dumped = self.settings.model_dump(mode="json")
        return [
            (name, _shown(name, dumped[name]), self.origins[name]) for name in Settings.model_fields
        ]


def resolve(**arguments: Any) -> Resolved:
    """Return the settings in force. An argument of None means "not given".

    Raises:
        UsageError: a value is out of range or unknown, or a file cannot be read; says where the
            value came from.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in [("argument", given), *_sources()]:
        for name, value in values.items():
            if name not in merged:
                merged[name] = value
                origins[name] = f"SMOOTHAPI_{name.upper()}" if origin == "environment" else origin
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        raise UsageError(_explain(error, origins)) from None
    return Resolved(
        settings, {name: origins.get(name, "default") for name in Settings.model_fields}
    )


def _sources() -> list[tuple[str, dict[str, Any]]]:
    try:
        environment = EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise UsageError(f"A SMOOTHAPI_* variable cannot be read: {error}.") from error
    known = {f"SMOOTHAPI_{name.upper()}" for name in (*Settings.model_fields, "debug")}
    for name in os.environ:
        if name.startswith("SMOOTHAPI_") and name.split("__")[0] not in known:
            _log.warning(
                "The variable %s sets nothing: smoothapi has no setting of that name.", name
            )
    return [
        ("environment", environment),
        (FILE, _table(FILE)),
        ("pyproject.toml", _table("pyproject.toml", "tool", "smoothapi")),
    ]


def _table(file: str, *path: str) -> dict[str, Any]:
    """Return a table of a TOML file in the working directory; empty without such a file."""
    try:
        with Path(file).open("rb") as stream:
            table: Any = tomllib.load(stream)
        for step in path:
            table = table.get(step, {})
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:  # bad TOML and bad UTF-8 are ValueErrors
        raise UsageError(
            f"The configuration file {Path(file).absolute()} cannot be read: {error}. Mend it "
            "there, or move it away: `smoothapi config` shows all settings and their defaults."
        ) from error
    if not isinstance(table, dict):
        raise UsageError(f"[{'.'.join(path)}] in {file} must be a table.")
    return table


def _explain(error: ValidationError, origins: dict[str, str]) -> str:
    problems: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        name = str(item["loc"][0]) if item["loc"] else "?"
        where = origins.get(name, "default")
        if item["type"] == "extra_forbidden":
            known = ", ".join(Settings.model_fields)
            near = get_close_matches(name, Settings.model_fields, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            said, why = f"{name!r} (from {where}) is not a setting.{hint} There are", known
        else:
            value = item["input"]
            # Options of providers may be secrets.
            shown = f" = {value!r}" if isinstance(value, (bool, int, float, str)) else ""
            said = f"{name}{'' if name in _MAY_BE_SECRET else shown} (from {where})"
            why = item["msg"].replace("Input should be", "it should be", 1)
            why = why.removeprefix("Value error, ").removesuffix(".")
        problems.setdefault(said, []).append(why)
    return "; ".join(f"{said}: {' or '.join(whys)}" for said, whys in problems.items()) + "."


def _shown(name: str, value: Any) -> str:
    """Return a value for display. Of an adapter's options, text is masked unless harmless."""
    if name in _MAY_BE_SECRET:
        return _masked(name, value)
    return "not set" if value is None else str(value)


def _masked(name: str, value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {_masked(str(key), item)}" for key, item in value.items())
        return f"{{{inner}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_masked(name, item) for item in value)}]"
    if value is None or isinstance(value, (bool, int, float)) or name in _HARMLESS:
        return str(value)
    return "********"
