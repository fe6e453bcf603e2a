"""How aiobotocore's Rekognition client is wrapped; aioboto3's is one of those, too."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ReadTimeoutError

from smoothapi_adapters._common.aio import SeenFromThread
from smoothapi_adapters.aws.wrap import RekognitionWrapper, check_service

if TYPE_CHECKING:
    from smoothapi.wrapping import Portal

# All methods go through the last one: an adapter looks at it to tell that calls are awaited.
_METHODS = frozenset((*RekognitionWrapper.operations, "_make_api_call"))


class AioRekognitionWrapper:
    """As RekognitionWrapper, with methods that are awaited."""

    operations = RekognitionWrapper.operations

    def __init__(self, client: Any) -> None:
        check_service(client, "an aiobotocore client")
        self._client = client

    def through(self, portal: Portal) -> RekognitionWrapper:
        """Return what reads one call."""
        late = partial(ReadTimeoutError, endpoint_url=self._client.meta.endpoint_url)
        return RekognitionWrapper(
            SeenFromThread(self._client, portal, _METHODS, lambda said: late(error=said))
        )

    async def enter(self) -> bool:
        """Enter it, if that has not been done: mostly `create_client` was entered to have it."""
        sessions = getattr(self._client._endpoint.http_session, "_sessions", {})  # noqa: SLF001
        if sessions is not None:
            return False
        await self._client.__aenter__()
        return True
