"""`mercat models lineage`: what a model was made from, and what was made from it."""

from collections.abc import Sequence
from typing import Annotated

import typer
from mercat.registry.v1 import lineage_pb2
from rich.markup import escape
from rich.tree import Tree

from services.cli import output
from services.cli.command import Session, command

_KINDS = {lineage_pb2.LINEAGE_KIND_DATASET: " (data set)", lineage_pb2.LINEAGE_KIND_ELSEWHERE: " (elsewhere)"}


def register(models: typer.Typer) -> None:
    models.command()(command(lineage))


def lineage(
    session: Session,
    model: Annotated[str, typer.Argument(help="publisher/name; of your own just the name.")],
    depth: Annotated[int, typer.Option(min=1, max=6, help="Steps each way.")] = 3,
) -> None:
    """Shows what a model was made from, and what was made from it, as cards say.

    Example: mercat models lineage ada/adder --depth 2
    """
    request = lineage_pb2.GetLineageRequest(model=session.full_name(model), depth=depth)
    answer = session.client.lineage.GetLineage(request)
    if session.json:
        output.say_json(answer)
        return
    up = [(e.made, e.origin.name, _text(e)) for e in answer.edges]
    down = [(e.origin.name, e.made, e.made + _versions(e)) for e in answer.edges]
    for title, edges in (("made from", up), ("what was made from it", down)):
        tree = Tree(f"[bold]{escape(output.clean(answer.model))}[/] {title}")
        _grow(tree, answer.model, edges, {answer.model})
        if not tree.children:
            tree.add("[dim]nothing that cards name[/]")
        output.console().print(tree)
    if answer.truncated:
        output.say("[dim]there is more; see --depth[/]")


def _grow(tree: Tree, name: str, edges: Sequence[tuple[str, str, str]], shown: set[str]) -> None:
    """Each name with what is behind it once, however many ways lead there."""
    for start, end, text in edges:
        if start == name:
            branch = tree.add(escape(output.clean(text)) + (" …" if end in shown else ""))
            if end not in shown:
                shown.add(end)
                _grow(branch, end, edges, shown)


def _text(edge: lineage_pb2.LineageEdge) -> str:
    return edge.origin.name + _KINDS.get(edge.origin.kind, "") + _versions(edge)


def _versions(edge: lineage_pb2.LineageEdge) -> str:
    return f" [{', '.join(edge.versions)}]" if edge.versions else ""
