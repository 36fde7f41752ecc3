"""How versions of models are shown."""

from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2

from services.cli import output

STATES = {
    state: registry_pb2.VersionState.Name(state).removeprefix("VERSION_STATE_").lower()
    for state in registry_pb2.VersionState.values()
}


def show_spec(spec: tensor_pb2.TensorSpec) -> str:
    """`input_ids INT64 [batch, any]`."""
    names = list(spec.axes) or [""] * len(spec.shape)
    axes = [name or ("any" if length < 0 else str(length)) for name, length in zip(names, spec.shape, strict=False)]
    return f"{spec.name} {spec.datatype} [{', '.join(axes)}]"


def findings(version: registry_pb2.Version) -> None:
    """Why validation refused a version."""
    output.table(["code", "where", "what"], [(f.code, f.where, f.message) for f in version.findings], empty="")
