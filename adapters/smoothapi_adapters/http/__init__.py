"""Any service behind HTTP."""

from smoothapi_adapters.http.adapter import HttpAdapter

__all__ = ["HttpAdapter"]
