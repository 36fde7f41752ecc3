"""Resumable uploads under `/tus/v1/uploads` as https://tus.io/protocols/resumable-upload 1.0.0 has them: core,
creation, creation with upload, checksum, expiration, termination. Each becomes calls of StorageService."""

from gateway_rest.tus.headers import SHOWN
from gateway_rest.tus.routes import routes

__all__ = ["SHOWN", "routes"]
