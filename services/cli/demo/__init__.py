"""The demo: free models, published by `mercat up` as any publisher would do it, and first calls to paste."""

from services.cli.demo.calls import calls
from services.cli.demo.publisher import publish

__all__ = ["calls", "publish"]
