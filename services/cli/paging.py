"""Lists that come in pages."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")]
Answer = TypeVar("Answer")
_PAGE = 1000


def gather(
    method: Callable[..., Answer], request: Any, field: str, limit: int, *, page: int = _PAGE
) -> Answer:  # fmt: skip
    """Up to `limit` rows of a list as one answer, with the token of what comes after them."""
    request.page_size = min(limit, page)
    answer: Any = method(request)
    rows = getattr(answer, field)
    while answer.next_page_token and len(rows) < limit:
        request.page_size = min(limit - len(rows), page)
        request.page_token = answer.next_page_token
        more: Any = method(request)
        rows.extend(getattr(more, field))
        answer.next_page_token = more.next_page_token
    return answer  # type: ignore[no-any-return]
