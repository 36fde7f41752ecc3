"""What listings mean: vectors that a model of Mercat's own makes of their texts, kept in the table beside them. While
there is no such model everything else goes on without."""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence

from mercat.inference.v1 import encoding_pb2, encoding_pb2_grpc
from mercat.marketplace.v1 import marketplace_pb2

from services.common.db import Database
from services.common.errors import MercatError
from services.common.rpc.channels import InternalChannel
from services.marketplace.store import Store

log = logging.getLogger(__name__)
SIZE = 384  # of a vector
NEAR = 0.3  # cosine from which two texts have something to do with each other
CANDIDATES = 100  # of a search
_BATCH = 32  # texts embedded at once
_PAUSE, _RETRY = 30.0, 5.0  # seconds between looks for others, and until who does not answer is asked again
_PATIENCE = 1.0  # seconds that a search waits for the vector of its words
_KNOWN = 1_000  # queries whose vectors are kept
_DESCRIBED = 600  # characters of a description that say what a model is


class MeaningAbsent(Exception):
    """Nothing is known of meanings just now; the text says why, for people."""


def text_of(listing: marketplace_pb2.Listing) -> str:
    """What of a listing is embedded."""
    model = listing.model
    name = model.display_name or model.model.partition("/")[2]
    task = model.task.replace("-", " ")
    return f"{name}: {task}. {model.summary} {', '.join(model.tags)}. {model.description[:_DESCRIBED]}".strip()


def digest_of(listing: marketplace_pb2.Listing) -> bytes:
    """Another one whenever the listing must be embedded anew."""
    return hashlib.sha256(text_of(listing).encode()).digest()[:16]


class Meaning:
    """Embeds listings and queries. `inference` reaches the workers; None, or no `encoder`: there is nobody to ask."""

    def __init__(self, database: Database, store: Store, inference: InternalChannel | None, encoder: str) -> None:
        self._database = database
        self._store = store
        self._workers = encoding_pb2_grpc.EncodingServiceStub(inference) if inference else None
        self._model = encoder
        self._encoder = ""  # with its version, as it last answered
        self._absent = ("", 0.0)  # why nobody answered, and until when nobody is asked again, on the event loop's clock
        self._queries: OrderedDict[str, Sequence[float]] = OrderedDict()
        self.wake = asyncio.Event()

    async def nearest(self, words: str) -> list[str]:
        """Models whose descriptions mean nearly what the words do, the nearest first. Raises MeaningAbsent."""
        vector = self._queries.get(words)
        if vector is None:
            said, until = self._absent
            if asyncio.get_running_loop().time() < until:
                raise MeaningAbsent(said)
            (vector,) = await self._encode([words], _PATIENCE)
            self._queries[words] = vector
            if len(self._queries) > _KNOWN:
                self._queries.popitem(last=False)
        async with self._database.transaction() as connection:
            return await self._store.nearest(connection, vector, self._encoder, NEAR, CANDIDATES)

    async def similar(self, model: str, most: int) -> list[str]:
        """Models whose descriptions mean nearly what that of a model does. Raises MeaningAbsent."""
        if not self._model or self._workers is None:
            raise MeaningAbsent("no text encoder is set")
        async with self._database.transaction() as connection:
            if not self._encoder or not await self._store.is_embedded(connection, model, self._encoder):
                raise MeaningAbsent(f"{model} is not embedded yet")
            return await self._store.nearest_to(connection, model, NEAR, most)

    async def keep(self) -> None:
        """Embeds listings that are new or described anew, for ever."""
        said = ""
        while True:
            pause = _PAUSE
            try:
                while await self._embed_some():
                    pass
                said = ""
            except MeaningAbsent as e:
                pause = _RETRY
                if str(e) != said:
                    said = str(e)
                    log.warning("models are found by their words alone: %s", e)
            except MercatError as e:
                log.warning("embeddings wait: %s", e)
            try:
                await asyncio.wait_for(self.wake.wait(), pause)
            except TimeoutError:
                pass
            self.wake.clear()

    async def _embed_some(self) -> bool:
        """Whether there may be more."""
        async with self._database.connection() as connection:
            waiting = await self._store.list_unembedded(connection, self._encoder, _BATCH)
        if not waiting:
            return False
        vectors = await self._encode([text_of(listing) for listing, _ in waiting], 30.0)
        async with self._database.transaction() as connection:
            for (listing, meaning), vector in zip(waiting, vectors, strict=True):
                await self._store.put_embedding(connection, listing.model.model, self._encoder, meaning, vector)
        return True

    async def _encode(self, texts: Sequence[str], patience: float) -> list[Sequence[float]]:
        if not self._model or self._workers is None:
            raise MeaningAbsent("no text encoder is set")
        request = encoding_pb2.EncodeTextsRequest(model=self._model, texts=texts)
        try:
            answer = await self._workers.EncodeTexts(request, timeout=patience)
        except MercatError as e:
            said = f"{self._model} does not answer ({e.reason})"
            self._absent = (said, asyncio.get_running_loop().time() + _RETRY)
            raise MeaningAbsent(said) from e
        self._absent = ("", 0.0)
        vectors: list[Sequence[float]] = [e.values for e in answer.embeddings]
        if {len(v) for v in vectors} != {SIZE}:
            raise MeaningAbsent(f"{self._model} does not make vectors of {SIZE} numbers")
        encoder = f"{answer.model}@{answer.version}"
        if encoder != self._encoder:  # another version means other numbers
            self._encoder = encoder
            self._queries.clear()
        return vectors
