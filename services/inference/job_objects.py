"""What jobs keep in storage: their requests, and the outcomes of their entries in parts."""

from collections.abc import AsyncIterator

from google.protobuf.message import Message
from mercat.inference.v1 import inference_pb2
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc

from services.common.rpc.channels import InternalChannel

_PIECE = 1 << 20  # bytes of one message
_TIMEOUT = 60.0  # seconds


class JobObjects:
    """Objects below `jobs/<job id>/`."""

    def __init__(self, channel: InternalChannel) -> None:
        self._stub = storage_pb2_grpc.ObjectServiceStub(channel)

    async def put(self, job_id: str, name: str, content: Message) -> str:
        """Stores a message and answers the object's name. Raises Unavailable and the like."""
        data = content.SerializeToString()
        full_name = f"jobs/{job_id}/{name}"

        async def pieces() -> AsyncIterator[storage_pb2.PutObjectRequest]:
            yield storage_pb2.PutObjectRequest(name=full_name, data=data[:_PIECE])
            for at in range(_PIECE, len(data), _PIECE):
                yield storage_pb2.PutObjectRequest(data=data[at : at + _PIECE])

        await self._stub.PutObject(pieces(), timeout=_TIMEOUT)
        return full_name

    async def request(self, full_name: str) -> inference_pb2.BatchPredictRequest:
        """Raises NotFound, Unavailable and the like."""
        return inference_pb2.BatchPredictRequest.FromString(await self._get(full_name))

    async def outcomes(self, full_name: str) -> inference_pb2.BatchPredictResponse:
        """Raises NotFound, Unavailable and the like."""
        return inference_pb2.BatchPredictResponse.FromString(await self._get(full_name))

    async def _get(self, full_name: str) -> bytes:
        asked = self._stub.GetObject(storage_pb2.GetObjectRequest(name=full_name), timeout=_TIMEOUT)
        return b"".join([piece.data async for piece in asked])

    async def delete(self, job_id: str) -> None:
        """Removes all that a job keeps. Raises Unavailable and the like."""
        await self._stub.DeleteObjects(storage_pb2.DeleteObjectsRequest(folder=f"jobs/{job_id}"), timeout=_TIMEOUT)
