"""Where photos come from: folders, patterns, buckets and the web, each fetched within limits."""

from smoothapi.photos.buckets import BucketFetcher
from smoothapi.photos.fetching import (
    Fetcher,
    FetchLimits,
    PhotoFetcher,
    is_remote,
    opened,
    shown_location,
)
from smoothapi.photos.finding import SUFFIXES, FoundPhoto, below, find
from smoothapi.photos.naming import RemoteFile
from smoothapi.photos.places import NamedPlaces, place_of
from smoothapi.photos.web import WebFetcher, is_public

__all__ = [
    "SUFFIXES",
    "BucketFetcher",
    "FetchLimits",
    "Fetcher",
    "FoundPhoto",
    "NamedPlaces",
    "PhotoFetcher",
    "RemoteFile",
    "WebFetcher",
    "below",
    "find",
    "is_public",
    "is_remote",
    "opened",
    "place_of",
    "shown_location",
]
