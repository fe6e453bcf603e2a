"""How Google's ImageAnnotatorAsyncClient is wrapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.api_core.exceptions import DeadlineExceeded

from smoothapi_adapters._common.aio import SeenFromThread
from smoothapi_adapters.google.wrap import ImageAnnotatorWrapper

if TYPE_CHECKING:
    from smoothapi.wrapping import Portal


class ImageAnnotatorAsyncWrapper:
    """As ImageAnnotatorWrapper, for the one method of it that this client has."""

    operations = frozenset(("batch_annotate_images",))

    def __init__(self, client: Any) -> None:
        self._client = client

    def through(self, portal: Portal) -> ImageAnnotatorWrapper:
        """Return what reads one call."""
        return ImageAnnotatorWrapper(
            SeenFromThread(self._client, portal, self.operations, DeadlineExceeded)
        )

    async def enter(self) -> bool:
        """Enter it."""
        await self._client.__aenter__()
        return True
