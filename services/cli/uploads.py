"""`mercat uploads`: what is on its way to the platform."""

from typing import Annotated

import typer
from mercat.storage.v1 import storage_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather

_OPEN = storage_pb2.Upload.STATE_OPEN


def register(app: typer.Typer) -> None:
    uploads = typer.Typer(help="Files on their way to the platform.", no_args_is_help=True, rich_markup_mode="rich")
    uploads.command("list")(command(list_uploads))
    uploads.command("delete")(command(delete))
    app.add_typer(uploads, name="uploads")


def list_uploads(session: Session, limit: Limit = 50) -> None:
    """Lists uploads that have not expired, newest first. `mercat push` of the same file goes on with one.

    Example: mercat uploads list
    """
    answer = gather(session.client.storage.ListUploads, storage_pb2.ListUploadsRequest(), "uploads", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["upload", "file", "arrived", "of bytes", "state", "expires"],
        [
            (
                one.upload_id, one.filename, f"{one.offset:,}", f"{one.size_bytes:,}",
                "open" if one.state == _OPEN else "complete", output.when(one.expires_at),
            )
            for one in answer.uploads
        ],
        empty="You have no uploads.",
    )  # fmt: skip


def delete(
    session: Session, name: Annotated[str, typer.Argument(metavar="UPLOAD", help="Its id, upl_….")]
) -> None:  # fmt: skip
    """Gives an upload up: what arrived of it is removed. The file of a complete one stays.

    Example: mercat uploads delete upl_06b3c…
    """
    session.client.storage.DeleteUpload(storage_pb2.DeleteUploadRequest(upload_id=name))
    if session.json:
        output.say_json({"uploadId": name})
    else:
        output.say(f"{name} is gone.")
