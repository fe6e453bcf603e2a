"""Settings: argument > SMOOTHAPI_* variable > smoothapi.toml > [tool.smoothapi] > default.

Both files are looked for in the working directory; SMOOTHAPI_CONFIG names another file instead of
them. `resolve` says of each value where it came from, so that `smoothapi config` can show it, and
whether it is one that needs the user's consent (`smoothapi.trust`).

pydantic, which takes a third of the time that importing the Smoother took, is loaded when settings
are resolved.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from smoothapi.errors import UsageError
from smoothapi.files import is_file, parse_toml, shown_name, text_of
from smoothapi.text import printable, shortened
from smoothapi.trust import SettingsFile, examined

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import ValidationError

    from smoothapi.settings import Settings

_PREFIX = "SMOOTHAPI_"
FILE = "smoothapi.toml"
FILE_VARIABLE = "SMOOTHAPI_CONFIG"
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
_TABLES = ("providers", "prices")
_MAY_HOLD_SECRET = (*_TABLES, "home")
# Empty, as `VARIABLE=$OF_NOTHING` leaves it, the name of a file would be that of the folder here.
_FILES = ("classes", "denoiser", "home", "noise_key_file", "record")
_NETWORKS_BY_NAME = ("default", "small", "none")
_log = logging.getLogger("smoothapi")


@dataclass(frozen=True)
class Resolved:
    """Settings, and for each where its value came from.

    Attributes:
        settings: the values.
        origins: name -> "argument", the variable's name, a file's name, or "default".
        files: name -> the file that its value is from, for values that are from one.
    """

    settings: Settings
    origins: dict[str, str]
    files: Mapping[str, SettingsFile] = field(default_factory=dict)

    def unvouched(self, name: str) -> SettingsFile | None:
        """Return the file that a setting is from, if nobody vouches for that file."""
        file = self.files.get(name)
        return None if file is None or file.trusted else file

    def doubtful(self) -> list[str]:
        """Return the settings, apart from options of adapters, that need consent and have none."""
        settings = self.settings
        grave = {
            "provider": settings.provider.startswith("replay:"),  # answers that anybody may forge
            "denoiser": settings.denoiser not in _NETWORKS_BY_NAME,
            "record": settings.record is not None,  # a file that is written to
            "home": True,  # the noise key, the answers and the ledger of budgets
            "noise_key_file": settings.noise_key_file is not None,  # noise that others know
            "prices": bool(settings.prices),
        }
        return [name for name, is_grave in grave.items() if is_grave and self.unvouched(name)]

    def require_trust(self, names: Iterable[str] | None = None) -> None:
        """Refuse settings that need consent and have none.

        Args:
            names: of the settings that are to be used; by default all.

        Raises:
            UsageError: says which, and how to consent.
        """
        for name in self.doubtful():
            if names is None or name in names:
                raise UsageError(
                    no_consent(name, self.files[name].path, f"SMOOTHAPI_{name.upper()}")
                )

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (name, value, origin) of every setting, with secrets masked."""
        return [
            (name, _shown(fact["value"]), fact["from"]) for name, fact in self.to_dict().items()
        ]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return {name: {"value": ..., "from": origin}}, ready for JSON, with secrets masked."""
        dumped = _dumped(self.settings)
        fields = type(self.settings).model_fields
        return {
            name: {
                "value": _masked(name, dumped[name]) if name in _TABLES else dumped[name],
                "from": self.origins[name],
            }
            for name in fields
        }


def resolve(given_in: str = "argument", /, **arguments: Any) -> Resolved:
    """Return the settings in force. An argument of None means "not given".

    Args:
        given_in: where the arguments were given, as `Resolved.origins` says.
        arguments: settings by name.

    Raises:
        UsageError: a value is out of range or unknown, or a file cannot be read; says where the
            value came from.
    """
    from pydantic import ValidationError  # noqa: PLC0415

    from smoothapi.settings import Settings  # noqa: PLC0415

    given = {name: value for name, value in arguments.items() if value is not None}
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    files: dict[str, SettingsFile] = {}
    for origin, values, file in [(given_in, given, None), *_sources()]:
        for name, value in values.items():
            if name not in merged:
                merged[name] = value
                origins[name] = f"SMOOTHAPI_{name.upper()}" if origin == "environment" else origin
                if file is not None:
                    files[name] = file
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        wrong = _explain(error, origins)
    else:
        wrong = ""
    if wrong:  # said here: pydantic's own error, which holds each value, is not chained
        raise UsageError(wrong)
    return Resolved(
        settings, {name: origins.get(name, "default") for name in Settings.model_fields}, files
    )


def settings_files() -> list[SettingsFile]:
    """Return the files that give settings here.

    Raises:
        UsageError: one cannot be read.
    """
    return [file for _, values, file in _file_sources() if file is not None and values]


def no_consent(what: str, file: Path, variable: str) -> str:
    """Return why a value that needs consent is refused, and what to do.

    Args:
        what: the value, such as "providers.azure.endpoint".
        file: that it is in.
        variable: of the environment that could give it instead.
    """
    return (
        f"{printable(str(file))} sets {printable(what)}, and nobody vouches for that file. What a "
        "folder brings along does not decide where credentials and photos go, which code runs, "
        "what answers are taken for true or what they cost. Read the file; if it is yours, run "
        f"`smoothapi config trust` there. Or give the value as an argument or in {variable}, or "
        f"name your own settings file in {FILE_VARIABLE}. Nothing was sent."
    )


_Sourced = tuple[str, dict[str, Any], SettingsFile | None]


def _sources() -> list[_Sourced]:
    files = _file_sources()
    if not any(name.upper().startswith(_PREFIX) for name in os.environ):
        return files
    return [("environment", _environment(), None), *files]


def _environment() -> dict[str, Any]:
    from smoothapi.settings import Settings  # noqa: PLC0415

    variables = {f"{_PREFIX}{name.upper()}": name for name in Settings.model_fields}
    given = {name.upper(): value for name, value in os.environ.items()}
    environment: dict[str, Any] = {
        variables[name]: value
        for name, value in given.items()
        if name in variables and (value or variables[name] not in _FILES)
    }
    if any(variables.get(name.split("__")[0]) in _TABLES for name in given):
        environment |= _tables_of_the_environment()
    known = {*variables, f"{_PREFIX}DEBUG", FILE_VARIABLE}
    for name in os.environ:
        if name.startswith(_PREFIX) and name.split("__")[0] not in known:
            _log.warning(
                "The variable %s sets nothing: smoothapi has no setting of that name.",
                printable(name),
            )
    return environment


def _tables_of_the_environment() -> dict[str, Any]:
    # It loads asyncio, argparse and dotenv, too: a tenth of a second.
    from pydantic_settings import EnvSettingsSource, SettingsError  # noqa: PLC0415

    from smoothapi.settings import Settings  # noqa: PLC0415

    # It reads what it is a source of, and makes none: a model does.
    kind = cast("Any", Settings)
    try:
        environment = EnvSettingsSource(kind, env_prefix=_PREFIX, env_nested_delimiter="__")()
    except (SettingsError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # The values are not shown, as one may be a secret.
        raise UsageError(
            "A SMOOTHAPI_* variable cannot be read"
            + (f": {error}." if isinstance(error, SettingsError) else ".")
            + ' Those of tables are JSON, as in SMOOTHAPI_PROVIDERS=\'{"aws": {"region_name": '
            '"eu-west-1"}}\'.'
        ) from error
    return {name: environment[name] for name in _TABLES if name in environment}


def _file_sources() -> list[_Sourced]:
    named = os.environ.get(FILE_VARIABLE)
    if not named:
        return [
            (FILE, *_table(FILE)),
            ("pyproject.toml", *_table("pyproject.toml", "tool", "smoothapi")),
        ]
    if not Path(named).is_absolute():
        raise UsageError(
            f"{FILE_VARIABLE}={named!r}: give an absolute path, so that it is the same file in "
            "whatever folder you are."
        )
    if not is_file(named):
        raise UsageError(f"{FILE_VARIABLE} names {named!r}, and there is no such file.")
    return [(named, *_table(named, named=True))]


def _table(
    file: str, *path: str, named: bool = False
) -> tuple[dict[str, Any], SettingsFile | None]:
    """Return a table of a TOML file, and the file; empty without such a file."""
    try:
        content = Path(file).read_bytes()
        table: Any = parse_toml(text_of(content))
        for step in path:
            table = table.get(step, {})
    except FileNotFoundError:
        return {}, None
    except (OSError, ValueError, AttributeError) as error:
        where = shown_name(os.path.abspath(file))  # noqa: PTH100  absolute() fails without a folder
        raise UsageError(
            f"The configuration file {where} cannot be read: {error}. Mend it "
            "there, or move it away: `smoothapi config` shows all settings and their defaults."
        ) from error
    if not isinstance(table, dict):
        raise UsageError(f"[{'.'.join(path)}] in {file} must be a table.")
    return table, examined(Path(file), content, named=named)


def _explain(error: ValidationError, origins: dict[str, str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  for errors alone

    from smoothapi.settings import Settings  # noqa: PLC0415

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
            shown = f" = {shortened(value)}" if isinstance(value, (bool, int, float, str)) else ""
            said = f"{name}{'' if name in _MAY_HOLD_SECRET else shown} (from {where})"
            why = item["msg"].replace("Input should be", "it should be", 1)
            why = why.removeprefix("Value error, ").removesuffix(".")
        problems.setdefault(said, []).append(why)
    return "; ".join(f"{said}: {' or '.join(whys)}" for said, whys in problems.items()) + "."


def _dumped(settings: Settings) -> dict[str, Any]:
    """Return the values in JSON's own types."""
    plain = settings.model_dump(mode="python")
    return {name: _jsonable(value) for name, value in plain.items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return shown_name(str(value))  # a path; of TOML also dates, and numbers that JSON has not


def _masked(name: str, value: Any) -> Any:
    """Return a value for display: of an adapter's options, text is masked unless harmless."""
    if isinstance(value, dict):
        return {key: _masked(str(key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(name, item) for item in value]
    if value is None or isinstance(value, (bool, int, float)) or name in _HARMLESS:
        return value
    return "********"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_shown(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return "not set" if value is None else str(value)
