"""How Azure's asynchronous ImageAnalysisClient (4.0) is wrapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azure.core.exceptions import ServiceResponseTimeoutError

from smoothapi_adapters._common.aio import SeenFromThread
from smoothapi_adapters.azure.v4.wrap import ImageAnalysisWrapper

if TYPE_CHECKING:
    from smoothapi.wrapping import Portal


class AioImageAnalysisWrapper:
    """As ImageAnalysisWrapper, with methods that are awaited."""

    operations = ImageAnalysisWrapper.operations

    def __init__(self, client: Any) -> None:
        self._client = client

    def through(self, portal: Portal) -> ImageAnalysisWrapper:
        """Return what reads one call."""
        return ImageAnalysisWrapper(
            SeenFromThread(self._client, portal, self.operations, ServiceResponseTimeoutError)
        )

    async def enter(self) -> bool:
        """Enter it."""
        await self._client.__aenter__()
        return True
