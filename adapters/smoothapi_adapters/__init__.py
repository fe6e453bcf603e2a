"""Adapters that come with smoothapi: a folder for each provider, with the same file names in each.

- `adapter`: the class that `smoothapi.adapters` registers, found by its name.
- `client`: how the provider's SDK, or HTTP, is made to send each request once.
- `errors`: what the provider's errors mean.
- `wrap`: how the provider's own client is wrapped.

What they share is in `_common`. Importing this package loads none of them, and no SDK.
"""
