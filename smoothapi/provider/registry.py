"""Adapters by name, through the entry-point group `smoothapi.adapters`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from smoothapi.config import no_consent
from smoothapi.errors import MissingExtraError, SmoothAPIError, UnknownProviderError, UsageError
from smoothapi.provider.consent import SafeOptions
from smoothapi.provider.price import Price
from smoothapi.text import meant, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint, EntryPoints

    from smoothapi.config import Resolved
    from smoothapi.provider.contract import Adapter
    from smoothapi.settings import Settings

GROUP = "smoothapi.adapters"

# As pyproject.toml registers them.
_BUILT_IN: Mapping[str, Mapping[str, str]] = {
    GROUP: {
        "aws": "smoothapi_adapters.aws:AwsAdapter",
        "azure": "smoothapi_adapters.azure:AzureAdapter",
        "azure4": "smoothapi_adapters.azure:Azure4Adapter",
        "clarifai": "smoothapi_adapters.clarifai:ClarifaiAdapter",
        "google": "smoothapi_adapters.google:GoogleAdapter",
        "http": "smoothapi_adapters.http:HttpAdapter",
        "mock": "smoothapi_adapters.mock:MockAdapter",
        "torch": "smoothapi_adapters.torch:TorchAdapter",
    },
    "smoothapi.fronts": {
        "aws": "smoothapi_adapters.aws.front:RekognitionFront",
        "azure": "smoothapi_adapters.azure.v3.front:ComputerVisionFront",
        "azure4": "smoothapi_adapters.azure.v4.front:ImageAnalysisFront",
        "clarifai": "smoothapi_adapters.clarifai.front:ClarifaiFront",
        "google": "smoothapi_adapters.google.front:ImageAnnotatorFront",
    },
    "smoothapi.buckets": {
        "az": "smoothapi_adapters.azure.bucket:sign_in",
        "gs": "smoothapi_adapters.google.bucket:sign_in",
        "s3": "smoothapi_adapters.aws.bucket:sign_in",
    },
    "smoothapi.wrappers": {
        "aiobotocore.client": "smoothapi_adapters.aws.aio:AioRekognitionWrapper",
        "azure.ai.vision.imageanalysis": "smoothapi_adapters.azure.v4.wrap:ImageAnalysisWrapper",
        "azure.ai.vision.imageanalysis.aio": (
            "smoothapi_adapters.azure.v4.aio:AioImageAnalysisWrapper"
        ),
        "azure.cognitiveservices.vision.computervision": (
            "smoothapi_adapters.azure.v3.wrap:ComputerVisionWrapper"
        ),
        "botocore.client": "smoothapi_adapters.aws.wrap:RekognitionWrapper",
        "google.cloud.vision_v1": "smoothapi_adapters.google.wrap:ImageAnnotatorWrapper",
        "google.cloud.vision_v1.services.image_annotator.async_client": (
            "smoothapi_adapters.google.aio:ImageAnnotatorAsyncWrapper"
        ),
    },
}


@dataclass(frozen=True, slots=True)
class _Ours:
    """An entry point that comes with smoothapi; Python's own brings all of `email`."""

    value: str

    def load(self) -> Any:
        module, _, name = self.value.partition(":")
        return getattr(import_module(module), name)


@dataclass(frozen=True)
class ProviderInfo:
    """What is known of a provider without sending anything.

    Attributes:
        name: as on the command line.
        distribution: the installed package that brings it.
        adapter: the adapter, or None if it cannot be made here.
        problem: why it cannot, in words; "" if it can.
        installed: whether the packages that it needs are.
    """

    name: str
    distribution: str
    adapter: Adapter | None
    problem: str = ""
    installed: bool = True


def registered(group: str) -> dict[str, EntryPoint]:
    """Return what is registered in a group of entry points, by name.

    What comes with smoothapi is also found where an installation lost its metadata (*.dist-info),
    as deployments that are made small do; a stranger's is not. A stranger's does not take its name:
    which of the two came first would be chance.
    """
    built_in = _built_in(group)
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group):
        ours = built_in.get(point.name)
        if ours is None or ours.value == point.value:
            found[point.name] = point
    return built_in | found


def entry_points(group: str) -> EntryPoints:
    """Return the entry points of a group, of all packages that are installed with metadata."""
    from importlib.metadata import entry_points as installed  # noqa: PLC0415

    return installed(group=group)


def _built_in(group: str) -> dict[str, EntryPoint]:
    from importlib.metadata import EntryPoint  # noqa: PLC0415

    return {name: EntryPoint(name, at, group) for name, at in _BUILT_IN.get(group, {}).items()}


def provider_names() -> list[str]:
    """Return the registered names in order."""
    return sorted(registered(GROUP))


def make_adapter(name: str, **options: Any) -> Adapter:
    """Load the adapter registered under `name` and make one with `options`.

    Raises:
        UnknownProviderError: nothing is registered under the name.
        MissingExtraError: its packages are not installed.
        UsageError: it does not take these options, or its entry point names what is not there.
    """
    factory = _load(name)
    _check_names(name, factory, options)
    try:
        return cast("Adapter", factory(**options))
    except (TypeError, ValueError, ArithmeticError) as error:
        if isinstance(error, SmoothAPIError):
            raise
        raise UsageError(
            f"The provider {name!r} does not take these options ({', '.join(options) or 'none'}): "
            f"{error}"
        ) from error


def adapter_options(name: str, resolved: Resolved) -> Mapping[str, Any]:
    """Return the options that the settings hold for an adapter.

    Raises:
        UsageError: a folder's settings file gives one that needs consent, and has none.
    """
    for option in doubtful_options(name, resolved):
        raise UsageError(
            no_consent(
                f"providers.{name}.{option}",
                resolved.files["providers"].path,
                f"SMOOTHAPI_PROVIDERS__{name.upper()}__{option.upper()}",
            )
        )
    return resolved.settings.providers.get(name, {})


def choose_price(settings: Settings, adapter: Adapter) -> Price:
    """Return the adapter's price list, or the one that the settings give instead.

    Raises:
        UsageError: that one cannot be read.
    """
    override: Mapping[str, Any] | None = settings.prices.get(adapter.name)
    return adapter.price if override is None else Price.parse(override, adapter.name)


def doubtful_options(name: str, resolved: Resolved) -> list[str]:
    """Return the options of an adapter that need consent, and have none."""
    options = resolved.settings.providers.get(name, {})
    if not options or resolved.unvouched("providers") is None:
        return []
    try:
        factory = _load(name)
    except Exception:  # noqa: BLE001  `make_adapter` will meet it too, and says what it means
        return []
    return getattr(factory, "safe_options", SafeOptions()).doubtful(options)


def refused_settings(resolved: Resolved) -> list[str]:
    """Return what is refused for want of consent, by its name in the settings."""
    found = resolved.doubtful()
    for name in resolved.settings.providers:
        found += [f"providers.{name}.{option}" for option in doubtful_options(name, resolved)]
    return found


def providers(resolved: Resolved | None = None) -> list[ProviderInfo]:
    """Return every registered provider with what can be known of it here.

    Args:
        resolved: the settings, whose options adapters are made with; by default none.
    """
    found: list[ProviderInfo] = []
    for name, point in sorted(registered(GROUP).items()):
        distribution = point.dist.name if point.dist else ""
        try:
            adapter = make_adapter(name, **(adapter_options(name, resolved) if resolved else {}))
            found.append(ProviderInfo(name, distribution, adapter))
        except MissingExtraError as error:
            found.append(ProviderInfo(name, distribution, None, str(error), installed=False))
        except Exception as error:  # noqa: BLE001  a stranger's broken adapter must not hide the rest
            found.append(ProviderInfo(name, distribution, None, str(error)))
    return found


def _load(name: str) -> Any:
    """Return what makes the adapter registered under `name`; raises as `make_adapter`."""
    point = _find(name)
    try:
        return point.load()
    except MissingExtraError:
        raise
    except ImportError as error:
        raise MissingExtraError(
            f"The provider {name!r} needs a package that is not installed ({error.name}). "
            f"Install it with: pip install 'smoothapi-vision[{name}]'"
        ) from error
    except AttributeError as error:
        raise UsageError(
            f"The provider {name!r} is registered as {point.value!r}, which cannot be loaded: "
            f"{error}. Mend the entry point of the package that brings it, or remove the package."
        ) from error


def _check_names(provider: str, factory: Any, options: Mapping[str, Any]) -> None:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # of a callable that does not tell
        return
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            raise UsageError(
                f"The provider {provider!r} has no option {option!r}.{meant(option, parameters)} "
                f"It takes: {', '.join(parameters) or 'none'}. Options come from "
                f"[providers.{provider}] in smoothapi.toml or from "
                f"SMOOTHAPI_PROVIDERS__{provider.upper()}__NAME."
            )


def _find(name: str) -> EntryPoint | _Ours:
    if name in _BUILT_IN[GROUP]:  # what is installed besides takes a while to look through
        return _Ours(_BUILT_IN[GROUP][name])
    points = registered(GROUP)
    if name in points:
        return points[name]
    said = f"No provider is registered as {shortened(name)}.{meant(name, points)} Installed: "
    said += f"{', '.join(sorted(points)) or 'none'}."
    if not entry_points(GROUP):
        said += (
            " The metadata of the installed packages (*.dist-info) is gone, so that other adapters "
            "cannot be found by name: make the adapter yourself and give it instead, as in "
            "Smoother(AcmeAdapter())."
        )
    raise UnknownProviderError(said)
