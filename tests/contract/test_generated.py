"""gen/ is what proto/ makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).parents[2]


def test_generated_code_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "proto/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_image_holds_what_error_details_need() -> None:
    image = FileDescriptorSet.FromString((ROOT / "gen" / "descriptors.binpb").read_bytes())
    names = {file.name for file in image.file}
    assert {"google/rpc/error_details.proto", "google/rpc/status.proto", "google/protobuf/any.proto"} <= names
