"""`mercat favourites`, `mercat collections`, `mercat follow` and `mercat feed`."""

from collections.abc import Iterator
from typing import Annotated

import typer
from mercat.marketplace.v1 import collections_pb2 as pb

from services.cli import output
from services.cli.command import Session, command
from services.cli.listings import show_hits
from services.cli.paging import Limit, gather

_KINDS = {
    value: pb.FeedEntryKind.Name(value).removeprefix("FEED_ENTRY_KIND_").lower() for value in pb.FeedEntryKind.values()
}
Model = Annotated[str, typer.Argument(help="publisher/name")]
Id = Annotated[str, typer.Argument(metavar="ID", help="col_…, as `mercat collections list` shows it.")]
Publisher = Annotated[str, typer.Argument(help="The first half of their models' names.")]


def register(app: typer.Typer) -> None:
    favourites = typer.Typer(help="Models that you come back to.", no_args_is_help=True, rich_markup_mode="rich")
    favourites.command("list")(command(list_favourites))
    favourites.command("add")(command(add_favourite))
    favourites.command("remove")(command(remove_favourite))
    app.add_typer(favourites, name="favourites")
    collections = typer.Typer(help="Models that belong together.", no_args_is_help=True, rich_markup_mode="rich")
    collections.command("list")(command(list_collections))
    collections.command("show")(command(show))
    collections.command("create")(command(create))
    collections.command("add")(command(add))
    collections.command("remove")(command(remove))
    collections.command("delete")(command(delete))
    app.add_typer(collections, name="collections")
    app.command()(command(follow))
    app.command()(command(unfollow))
    app.command()(command(feed))


def list_favourites(session: Session, limit: Limit = 50) -> None:
    """Lists your favourites, the newest first.

    Example: mercat favourites list
    """
    answer = gather(session.client.collections.ListFavourites, pb.ListFavouritesRequest(), "hits", limit)
    if session.json:
        output.say_json(answer)
        return
    show_hits(answer.hits, empty="You have no favourites; add one with `mercat favourites add`.")


def add_favourite(session: Session, model: Model) -> None:
    """Makes a model one of your favourites.

    Example: mercat favourites add mercat/minilm
    """
    session.client.collections.AddFavourite(pb.AddFavouriteRequest(model=session.full_name(model)))
    _done(session, f"{model} is a favourite.")


def remove_favourite(session: Session, model: Model) -> None:
    """Takes a model out of your favourites.

    Example: mercat favourites remove mercat/minilm
    """
    session.client.collections.RemoveFavourite(pb.RemoveFavouriteRequest(model=session.full_name(model)))
    _done(session, f"{model} is no favourite.")


def list_collections(
    session: Session,
    curated: Annotated[bool, typer.Option("--curated", help="Those of the platform, not yours.")] = False,
    limit: Limit = 50,
) -> None:
    """Lists your collections, or those that the platform made for all.

    Example: mercat collections list --curated
    """
    request = pb.ListCollectionsRequest(curated=curated)
    answer = gather(session.client.collections.ListCollections, request, "collections", limit)
    if session.json:
        output.say_json(answer)
        return
    rows = [(c.collection_id, c.title, c.description) for c in answer.collections]
    output.table(["id", "title", "description"], rows, empty="There are none.")


def show(session: Session, collection: Id) -> None:
    """Shows what is in a collection.

    Example: mercat collections show col_…
    """
    request = pb.GetCollectionRequest(collection_id=collection)
    _one(session, session.client.collections.GetCollection(request).collection)


def create(
    session: Session,
    title: Annotated[str, typer.Argument()],
    description: Annotated[str, typer.Option(help="What they have in common.")] = "",
    curated: Annotated[bool, typer.Option("--curated", help="For all; for administrators.")] = False,
) -> None:
    """Makes a collection.

    Example: mercat collections create "reading receipts"
    """
    request = pb.CreateCollectionRequest(title=title, description=description, curated=curated)
    _one(session, session.client.collections.CreateCollection(request).collection)


def add(session: Session, collection: Id, model: Model) -> None:
    """Adds a model to a collection.

    Example: mercat collections add col_… mercat/pp-ocr-det
    """
    request = pb.AddToCollectionRequest(collection_id=collection, model=session.full_name(model))
    _one(session, session.client.collections.AddToCollection(request).collection)


def remove(session: Session, collection: Id, model: Model) -> None:
    """Takes a model out of a collection.

    Example: mercat collections remove col_… mercat/pp-ocr-det
    """
    request = pb.RemoveFromCollectionRequest(collection_id=collection, model=session.full_name(model))
    _one(session, session.client.collections.RemoveFromCollection(request).collection)


def delete(session: Session, collection: Id) -> None:
    """Deletes a collection; its models stay where they are.

    Example: mercat collections delete col_…
    """
    session.client.collections.DeleteCollection(pb.DeleteCollectionRequest(collection_id=collection))
    _done(session, "It is deleted.")


def follow(session: Session, publisher: Publisher) -> None:
    """Brings new versions of a publisher into your feed.

    Example: mercat follow mercat
    """
    session.client.collections.FollowPublisher(pb.FollowPublisherRequest(publisher=publisher))
    _done(session, f"You follow {publisher}; see `mercat feed`.")


def unfollow(session: Session, publisher: Publisher) -> None:
    """Ends that.

    Example: mercat unfollow mercat
    """
    session.client.collections.UnfollowPublisher(pb.UnfollowPublisherRequest(publisher=publisher))
    _done(session, f"You do not follow {publisher}.")


def feed(session: Session, limit: Limit = 20) -> None:
    """Lists what is new and what ends of models that you follow, like or call.

    Example: mercat feed
    """
    answer = gather(session.client.collections.ListFeed, pb.ListFeedRequest(), "entries", limit)
    if session.json:
        output.say_json(answer)
        return
    rows = [
        (output.when(e.time), _KINDS[e.kind], f"{e.hit.model}@{e.version}", "; ".join(_about(e)))
        for e in answer.entries
    ]
    output.table(
        ["when (UTC)", "what", "version", "about"], rows, empty="Nothing yet; follow somebody with `mercat follow`."
    )


def _about(entry: pb.FeedEntry) -> Iterator[str]:
    if entry.kind == pb.FEED_ENTRY_KIND_PUBLISHED:
        yield entry.hit.summary
    if entry.kind == pb.FEED_ENTRY_KIND_DEPRECATED:
        yield f"answers until {output.when(entry.sunset_at)}" if entry.HasField("sunset_at") else "answers for ever"
    if entry.successor:
        yield f"use {entry.successor}"
    if entry.reason:
        yield entry.reason
    if entry.called:
        yield "you call it"


def _one(session: Session, collection: pb.Collection) -> None:
    if session.json:
        output.say_json(collection)
        return
    output.facts([("title", collection.title), ("id", collection.collection_id)])
    show_hits(collection.models, empty="It is empty.")


def _done(session: Session, said: str) -> None:
    output.done(said, as_json=session.json)
