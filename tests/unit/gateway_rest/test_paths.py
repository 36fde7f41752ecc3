from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_rest.paths import Router, Variable, normal, parse


def router(*templates: str) -> Router[str]:
    return Router(("GET", parse(text), text) for text in templates)


def test_template_has_segments_variables_and_verb() -> None:
    template = parse("/v1/models/{model=*/*}/versions/{version}:submit")
    assert template.segments == ("v1", "models", "*", "*", "versions", "*")
    assert template.variables == (Variable("model", 2, 4), Variable("version", 5, 6))
    assert template.verb == "submit"


@pytest.mark.parametrize("text", ["v1", "/", "/v1/", "/v1//x", "/v1/{a", "/v1/{a=**}/x", "/v1:", "/v1:a/b", "/v1/{=*}"])
def test_malformed_template_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


def test_same_binding_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="bound twice"):
        router("/v1/{a}", "/v1/{b}")


def test_literal_wins_over_wildcard_and_wildcard_over_rest() -> None:
    routes = router("/v1/{name=**}", "/v1/{name}", "/v1/me")
    assert routes.match("GET", "/v1/me") == ("/v1/me", {})
    assert routes.match("GET", "/v1/you") == ("/v1/{name}", {"name": "you"})
    assert routes.match("GET", "/v1/you/and/me") == ("/v1/{name=**}", {"name": "you/and/me"})


def test_search_goes_back_where_a_literal_leads_nowhere() -> None:
    routes = router("/v1/a/b", "/v1/{x}/c")
    assert routes.match("GET", "/v1/a/c") == ("/v1/{x}/c", {"x": "a"})


def test_only_verbs_of_templates_are_verbs() -> None:
    routes = router("/v1/{name}", "/v1/{name}:run")
    assert routes.match("GET", "/v1/a:run") == ("/v1/{name}:run", {"name": "a"})
    assert routes.match("GET", "/v1/a:b:run") == ("/v1/{name}:run", {"name": "a:b"})
    assert routes.match("GET", "/v1/a:b") == ("/v1/{name}", {"name": "a:b"})


def test_method_is_part_of_the_binding() -> None:
    assert router("/v1/x").match("POST", "/v1/x") is None


@pytest.mark.parametrize("path", ["/v1/../a", "/v1/%2e%2E/a", "/v1/.", "/v1/a%2F..%2fb", "/v1/..%5Cb"])
def test_path_that_climbs_is_an_error(path: str) -> None:
    with pytest.raises(ValueError, match="refused"):
        normal(path)


def test_escaped_slash_is_a_slash() -> None:
    assert normal("/v1/models/a%2Fb%5cc%2F") == "/v1/models/a/b/c"


def test_bytes_that_are_not_utf8_are_an_error() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        router("/v1/{a}").match("GET", "/v1/%ff")


segment = st.text(st.characters(codec="utf-8", exclude_characters="/\\"), min_size=1).filter(
    lambda text: text not in (".", "..") and ":" not in text
)


@given(st.lists(segment, min_size=2, max_size=2))
def test_escaped_names_come_back(names: list[str]) -> None:
    from urllib.parse import quote

    path = normal("//v1/models/" + "/".join(quote(name, safe="") for name in names) + ":run/")
    assert router("/v1/models/{model=*/*}:run").match("GET", path) == (
        "/v1/models/{model=*/*}:run",
        {"model": "/".join(names)},
    )


@given(st.text(max_size=200))
def test_any_path_is_matched_or_refused(path: str) -> None:
    routes = router("/v1/{a=*/*}:go", "/v1/{b}", "/{c=**}")
    with contextlib.suppress(ValueError):
        routes.match("GET", normal(path))
