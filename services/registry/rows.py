"""Rows as messages of the contract."""

import json

from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2

from services.common import call_limits
from services.registry.store import Row


def model_of(row: Row) -> registry_pb2.Model:
    model = registry_pb2.Model(
        model_id=row["id"], model=f"{row['publisher']}/{row['name']}", org_id=row["org_id"],
        display_name=row["display_name"], summary=row["summary"], description=row["description"],
        category=row["category"], task=row["task"], tags=row["tags"], license=row["license"], homepage=row["homepage"],
        latest_version=row["latest_version"], aliases=json.loads(row["aliases"]), etag=str(row["revision"]),
        limit=call_limits.read(row["call_limit"]), visibility=row["visibility"],
    )  # fmt: skip
    if row["card"]:
        model.card_metadata.ParseFromString(row["card"])
    for name in ("created_at", "updated_at", "published_at"):
        if row[name] is not None:
            getattr(model, name).FromDatetime(row[name])
    return model


def text_of(row: Row) -> registry_pb2.TextModel | None:
    """What a version is to text calls; None: nothing."""
    return registry_pb2.TextModel.FromString(row["text"]) if row["text"] else None


def deprecation_of(row: Row) -> registry_pb2.Deprecation:
    """Of a version that is deprecated, or was."""
    made = registry_pb2.Deprecation(successor=row["successor"], reason=row["deprecation_reason"])
    made.deprecated_at.FromDatetime(row["deprecated_at"])
    if row["sunset_at"] is not None:
        made.sunset_at.FromDatetime(row["sunset_at"])
    return made


def yank_of(row: Row) -> registry_pb2.Yank:
    """Of a version that is yanked."""
    made = registry_pb2.Yank(reason=row["yank_reason"], by_admin=row["yanked_by"] == "admin")
    made.yanked_at.FromDatetime(row["yanked_at"])
    return made


def version_of(row: Row, model: str) -> registry_pb2.Version:
    version = registry_pb2.Version.FromString(row["document"])  # settings, samples, labels, card and provenance
    version.MergeFrom(
        registry_pb2.Version(
            version_id=row["id"], model=model, version=row["version"], state=row["state"], framework=row["framework"],
            digest=row["digest"], size_bytes=row["size_bytes"],
            signature=tensor_pb2.Signature.FromString(row["signature"]), release_notes=row["release_notes"],
            findings=[registry_pb2.Finding(**f) for f in json.loads(row["findings"])], review_note=row["review_note"],
            measured_load_us=row["measured_load_us"], measured_run_us=row["measured_run_us"],
            measured_memory_bytes=row["measured_memory_bytes"], text=text_of(row), served_digest=row["served_digest"],
            served_size_bytes=row["served_size_bytes"], review=row["review"],
        )
    )  # fmt: skip
    if row["sample_replies"] is not None:
        for sample, reply in zip(version.samples, json.loads(row["sample_replies"]), strict=True):
            sample.response_json = reply
    if row["scan"]:
        version.scan.ParseFromString(row["scan"])
    if row["deprecated_at"] is not None:
        version.deprecation.CopyFrom(deprecation_of(row))
    if row["yanked_by"]:
        version.yank.CopyFrom(yank_of(row))
    for name in ("created_at", "published_at", "deprecated_at", "deleted_at"):
        if row[name] is not None:
            getattr(version, name).FromDatetime(row[name])
    return version
