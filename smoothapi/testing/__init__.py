"""Testing without a network. Holds nothing yet; `smoothapi_adapters.mock` is the stand-in."""
