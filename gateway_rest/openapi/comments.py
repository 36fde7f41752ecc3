"""The comments of the contracts, by the full name of what they are written above."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet

# Field numbers of descriptor.proto, of which the paths of source locations are made.
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6
_MESSAGE_FIELD, _MESSAGE_NESTED, _MESSAGE_ENUM = 2, 3, 4
_ENUM_VALUE, _SERVICE_METHOD = 2, 2

Path = tuple[int, ...]


def read(image: FileDescriptorSet) -> dict[str, str]:
    """Leading comments, unwrapped into paragraphs. Enum values are keyed `package.Enum.VALUE`."""
    found: dict[str, str] = {}
    for file in image.file:
        _read_file(file, found)
    return found


def _read_file(file: FileDescriptorProto, found: dict[str, str]) -> None:
    texts = {
        tuple(location.path): location.leading_comments
        for location in file.source_code_info.location
        if location.leading_comments
    }

    def note(name: str, path: Path) -> None:
        if path in texts:
            found[name] = _unwrap(texts[path])

    def enum(prefix: str, kind: EnumDescriptorProto, path: Path) -> None:
        name = f"{prefix}.{kind.name}"
        note(name, path)
        for index, value in enumerate(kind.value):
            note(f"{name}.{value.name}", (*path, _ENUM_VALUE, index))

    def message(prefix: str, kind: DescriptorProto, path: Path) -> None:
        name = f"{prefix}.{kind.name}"
        note(name, path)
        for index, field in enumerate(kind.field):
            note(f"{name}.{field.name}", (*path, _MESSAGE_FIELD, index))
        for index, nested in enumerate(kind.nested_type):
            message(name, nested, (*path, _MESSAGE_NESTED, index))
        for index, nested_enum in enumerate(kind.enum_type):
            enum(name, nested_enum, (*path, _MESSAGE_ENUM, index))

    for index, kind in enumerate(file.message_type):
        message(file.package, kind, (_FILE_MESSAGE, index))
    for index, enum_kind in enumerate(file.enum_type):
        enum(file.package, enum_kind, (_FILE_ENUM, index))
    for index, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        note(name, (_FILE_SERVICE, index))
        for number, method in enumerate(service.method):
            note(f"{name}.{method.name}", (_FILE_SERVICE, index, _SERVICE_METHOD, number))


def _unwrap(text: str) -> str:
    paragraphs = ("\n".join(line.strip() for line in text.strip().splitlines())).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
