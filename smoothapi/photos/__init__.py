"""Where photos come from: folders, patterns, buckets and the web, each fetched within limits.

Public names are loaded when they are first used: a file of this machine needs nothing of the web.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothapi._lazy import lazy_names

if TYPE_CHECKING:
    from smoothapi.photos.buckets import BucketFetcher
    from smoothapi.photos.carrying import CarriedPhoto, NotHereError, carried, with_content
    from smoothapi.photos.fetching import Fetcher, PhotoFetcher, is_remote, opened
    from smoothapi.photos.finding import SUFFIXES, FoundPhoto, below, find
    from smoothapi.photos.limits import FetchLimits
    from smoothapi.photos.naming import RemoteFile, shown_location
    from smoothapi.photos.places import NamedPlaces, place_of
    from smoothapi.photos.web import WebFetcher, is_public

_HOMES = {
    "smoothapi.photos.buckets": ("BucketFetcher",),
    "smoothapi.photos.carrying": ("CarriedPhoto", "NotHereError", "carried", "with_content"),
    "smoothapi.photos.fetching": ("Fetcher", "PhotoFetcher", "is_remote", "opened"),
    "smoothapi.photos.finding": ("SUFFIXES", "FoundPhoto", "below", "find"),
    "smoothapi.photos.limits": ("FetchLimits",),
    "smoothapi.photos.naming": ("RemoteFile", "shown_location"),
    "smoothapi.photos.places": ("NamedPlaces", "place_of"),
    "smoothapi.photos.web": ("WebFetcher", "is_public"),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "SUFFIXES",
    "BucketFetcher",
    "CarriedPhoto",
    "FetchLimits",
    "Fetcher",
    "FoundPhoto",
    "NamedPlaces",
    "NotHereError",
    "PhotoFetcher",
    "RemoteFile",
    "WebFetcher",
    "below",
    "carried",
    "find",
    "is_public",
    "is_remote",
    "opened",
    "place_of",
    "shown_location",
    "with_content",
]
