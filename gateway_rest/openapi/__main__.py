from __future__ import annotations

import json
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from gateway_rest.openapi import document


def main(image: str, out: str) -> None:
    described = FileDescriptorSet.FromString(Path(image).read_bytes())
    text = json.dumps(document(described), ensure_ascii=False, indent=2) + "\n"
    Path(out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
