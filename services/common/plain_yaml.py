"""YAML from outside as texts, lists and dicts, and nothing else: no tags are acted on, no text becomes a date, a number
or (`no`, the language) a truth value, and a few bytes cannot stand for many, since aliases are refused."""

from typing import Any

import yaml

MOST = 16 * 1024  # characters
_DEEPEST = 16


class BadYaml(ValueError):
    """The text says why, and in which line."""


class _Loader(yaml.BaseLoader):
    """In pure Python: the one in C falls over deep nesting."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise self._refused("aliases are not taken")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._refused("it is nested too deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _refused(self, problem: str) -> yaml.MarkedYAMLError:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            raise yaml.MarkedYAMLError(problem="a key is given twice", problem_mark=node.start_mark)
        return found


def load(text: str, *, first_line: int = 1) -> dict[str, Any]:
    """The mapping that a text is; empty for an empty one. `first_line`: of the text in its file. Raises BadYaml."""
    if len(text) > MOST:
        raise BadYaml(f"it has {len(text):,} characters; at most {MOST:,}")
    try:
        found = _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as e:
        where = f"line {e.problem_mark.line + first_line}: " if e.problem_mark else ""
        raise BadYaml(f"{where}{e.problem or e.context}") from None
    except (yaml.YAMLError, RecursionError) as e:
        raise BadYaml(f"it is no YAML: {str(e).splitlines()[0]}") from None
    if found in (None, ""):
        return {}
    if not isinstance(found, dict):
        raise BadYaml("it must be keys with values, such as `license: MIT`")
    return found
