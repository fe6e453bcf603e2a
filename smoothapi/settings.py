"""The settings that there are: names, ranges, defaults. `smoothapi.config` finds their values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    field_validator,
)
from pydantic_core import PydanticCustomError

from smoothapi.address import DatabaseAddress, HomeAddress, parse_home
from smoothapi.errors import UsageError
from smoothapi.files import expanded
from smoothapi.radius import parsed


def _text(value: Any) -> str:
    """Take text that may name a file, and so hold bytes that are no UTF-8: pydantic's own does not.

    Raises:
        PydanticCustomError: it is no text, or has a NUL, which no file's name has.
    """
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "Input should be a valid string")
    if "\0" in value:
        raise PydanticCustomError("string_nul", "Input should be text without a NUL")
    return value


def _home(value: Any) -> HomeAddress:
    if isinstance(value, DatabaseAddress):
        return value
    return parse_home(_path(value) if isinstance(value, Path) else _text(value))


def _path(value: Any) -> Path:
    if not isinstance(value, (str, Path)):
        raise PydanticCustomError("path_type", "Input is not a valid path")
    return expanded(_text(str(value)))


_Text = Annotated[str, PlainValidator(_text)]
_File = Annotated[Path, PlainValidator(_path)]
_Home = Annotated[
    HomeAddress,
    PlainValidator(_home),
    # Else pydantic would write an address out, password and all.
    PlainSerializer(lambda home: home if isinstance(home, Path) else str(home)),
]
_PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


def _default_home() -> Path:
    try:
        folder = Path(platformdirs.user_data_dir("smoothapi"))
    except RuntimeError:  # of the newer platformdirs; an older one returns a path that is no such
        folder = Path()
    if not folder.is_absolute():
        raise UsageError(
            "There is no folder to keep the noise key and the answers in: it is not known where "
            "this user's home folder is (no HOME, and no entry in the password file). Set "
            "SMOOTHAPI_HOME to a folder that is kept, such as a mounted volume."
        )
    return folder


class Settings(BaseModel):
    """Every setting, with its range and its default."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", frozen=True, validate_default=True
    )

    provider: _Text = Field("mock", description="the adapter's name")
    sigma: float = Field(0.25, gt=0.0, le=1.5, description="noise level, of the [0, 1] range")
    radius: float | str = Field(
        0.25, description="L2 radius to certify (0.25, 0.5 native, 0.1/255 rms), or largest"
    )
    alpha: float = Field(0.001, gt=0.0, lt=0.5, description="chance of a wrong certificate")
    max_votes: int = Field(1000, ge=1, description="most votes for one certificate")
    final: bool = Field(
        False, description="no photo is asked about with more votes, or at another radius"
    )
    budget: str | None = Field(None, description="hard limit of a session: 500, $2 or 500,$2")
    size: int = Field(224, ge=1, le=4096, description="shorter side of the working image")
    classes: _File | None = Field(None, description="TOML or JSON file of your classes")
    plain: bool = Field(True, description="ask for the label of the working image itself, too")
    denoiser: _Text = Field("default", description="default, small, none, or a file of one")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    codec: Literal["png", "jpeg"] = Field("png", description="how variants are encoded")
    concurrency: int = Field(8, ge=1, le=256, description="most requests in flight")
    attempts: int = Field(5, ge=1, le=100, description="most sends of one variant")
    deadline: _PositiveFloat = Field(300.0, description="seconds until a variant is given up")
    max_failed: float = Field(0.1, ge=0.0, le=1.0, description="share of failures that stops a run")
    partial: bool = Field(False, description="buy what the budget allows, though it is not enough")
    record: _File | None = Field(None, description="file that answers are also written to")
    home: _Home = Field(
        default_factory=_default_home,
        description="folder of the noise key and the answers, or postgresql://...",
    )
    noise_key_file: _File | None = Field(
        None, description="file of a deployment's noise key; by default the home's own"
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
        try:
            return parsed(value)
        except UsageError as error:
            raise ValueError(str(error)) from error
