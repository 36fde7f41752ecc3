"""Tags: what is taken, and what is refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidFields
from services.common.rpc import tags

names = st.from_regex(r"[a-z][a-z0-9_.-]{0,31}", fullmatch=True)
values = st.from_regex(r"[A-Za-z0-9_.:/@+-]{1,64}", fullmatch=True)


@given(st.dictionaries(names, values, min_size=1, max_size=tags.MOST), st.integers(1, 3))
def test_tags_are_the_same_however_they_are_spread_over_headers(pairs: dict[str, str], step: int) -> None:
    said = [f"{name}={value}" for name, value in pairs.items()]
    headers = [", ".join(said[at : at + step]) for at in range(0, len(said), step)]
    found = tags.read(headers)
    assert dict(found) == pairs
    assert list(found) == sorted(found)
    assert tags.read([tags.show(found)]) == found


@pytest.mark.parametrize(
    ("header", "about"),
    [
        ("", "no name"), ("team", "value of team"), ("=x", "no name"), ("Team=x", "no name"),
        ("team=", "value of team"),
        ("team=a b", "value of team"), ("team=ä", "value of team"), ("team=" + "x" * 65, "value of team"),
        ("t" * 33 + "=x", "no name"), ("team=a,team=b", "twice"), (",".join(f"t{n}=x" for n in range(9)), "at most 8"),
        ("team=a,", "no name"), ("x" * 100_000, "no name"),
    ],
)  # fmt: skip
def test_what_is_no_tag_is_refused(header: str, about: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        tags.read([header])
    (violation,) = refused.value.violations
    assert violation.field == "mercat-tag"
    assert about in violation.description
    assert len(violation.description) < 200
