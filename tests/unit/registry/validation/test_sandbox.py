"""What a converter cannot do, tried in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")
SANDBOXED = """
import os, socket, subprocess, sys
from pathlib import Path
from services.registry.validation.sandbox import enter
enter([Path(sys.prefix), Path(sys.base_prefix)], Path(sys.argv[1]))
"""


def sandboxed(folder: Path, code: str) -> str:
    """What `code` prints: `refused` where the kernel does not let it."""
    attempt = "".join(f"    {line}\n" for line in code.strip().splitlines())
    program = f"{SANDBOXED}\ntry:\n{attempt}    print('done')\nexcept OSError:\n    print('refused')\n"
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd').read()", "os.listdir('/')", "os.listdir(os.path.dirname(sys.argv[1]))",
        "open(f'/proc/{os.getppid()}/environ').read()", "open('/tmp/harm', 'w')",
        "open(os.path.join(sys.argv[1], '..', 'harm'), 'w')", "os.remove(os.path.join(sys.prefix, 'pyvenv.cfg'))",
        "os.link('/etc/passwd', os.path.join(sys.argv[1], 'link'))",
        "os.symlink('/etc/passwd', os.path.join(sys.argv[1], 'link'))\nopen(os.path.join(sys.argv[1], 'link')).read()",
        "socket.socket(socket.AF_UNIX)", "socket.socket(socket.AF_INET)", "subprocess.run(['/bin/true'])",
        "os.kill(os.getppid(), 0)", "os.setsid()", "os.setpgid(0, 0)", "os.chroot(sys.argv[1])", "os.setuid(12345)",
    ],
)  # fmt: skip
def test_out_of_reach(code: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert sandboxed(folder, code) == "refused"
    assert not (tmp_path / "harm").exists()
    assert (Path(sys.prefix) / "pyvenv.cfg").exists()


def test_other_architectures_calls_are_refused(tmp_path: Path) -> None:
    """The same call by its x32 number would otherwise be another one to the filter."""
    if os.uname().machine != "x86_64":
        pytest.skip("x32 is x86-64's")
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(0x40000000 + 41, 1, 1, 0) < 0:
    raise OSError(ctypes.get_errno(), "refused")
"""
    assert sandboxed(tmp_path, code) == "refused"


def test_its_own_folder_and_its_libraries_are_there(tmp_path: Path) -> None:
    code = """
import numpy
path = Path(sys.argv[1], "sub", "file")
path.parent.mkdir()
path.write_bytes(numpy.ones(3).tobytes())
assert len(path.read_bytes()) == 24
path.unlink()
"""
    assert sandboxed(tmp_path, code) == "done"
