"""Clarifai."""

from smoothapi_adapters.clarifai.adapter import ClarifaiAdapter

__all__ = ["ClarifaiAdapter"]
