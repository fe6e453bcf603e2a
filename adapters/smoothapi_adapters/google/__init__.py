"""Google Cloud Vision."""

from smoothapi_adapters.google.adapter import GoogleAdapter

__all__ = ["GoogleAdapter"]
