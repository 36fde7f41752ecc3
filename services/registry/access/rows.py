"""Rows as messages of the contract."""

from mercat.registry.v1 import access_pb2, visibility_pb2

from services.registry.store import Row


def gate_of(row: Row) -> visibility_pb2.Gate:
    return visibility_pb2.Gate(
        approval=row["approval"], terms=row["text"] or "", terms_url=row["url"] or "",
        terms_version=row["version"] or "", terms_digest=row["terms_digest"],
    )  # fmt: skip


def access_of(row: Row) -> access_pb2.ModelAccess:
    made = access_pb2.ModelAccess(
        model=f"{row['publisher']}/{row['name']}", organisation=row["organisation"], org_id=row["org_id"],
        state=row["state"], may_call=row["may_call"], message=row["message"], reason=row["reason"],
        accepted_digest=row["digest"] or "", accepted_version=row["version"] or "", accepted_by=row["user_id"] or "",
    )  # fmt: skip
    for name in ("accepted_at", "requested_at", "decided_at"):
        if row[name] is not None:
            getattr(made, name).FromDatetime(row[name])
    return made
