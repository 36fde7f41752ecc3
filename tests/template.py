"""PostgreSQL's folder with the tables of every service in it, made once in a run and copied into the home of each new
platform: making it anew takes as long as all else of a start, and comes out the same."""

import asyncio
import fcntl
import json
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

from services.embedded.home import LAYOUT
from services.embedded.postgres import Postgres

place: Path | None = None  # where it is kept; without it platforms start from nothing


def give(home: Path) -> None:
    """Makes a home that is not there yet, for its first start."""
    if place is None or home.exists():
        return
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "postgres").exists():
            subprocess.run([sys.executable, "-m", "tests.template", str(place / "draft")], check=True, timeout=120)
            (place / "draft").rename(place / "postgres")
    (home / "postgres").mkdir(mode=0o700, parents=True)
    kept = [str(place / "postgres" / name) for name in ("data", "password")]
    subprocess.run(["cp", "-a", *kept, str(home / "postgres")], check=True)  # data keeps its owner
    (home / "version.json").write_text(json.dumps({"layout": LAYOUT}))


async def make(folder: Path) -> None:
    from services.common.db import migrate

    shutil.rmtree(folder, ignore_errors=True)
    async with Postgres(folder) as postgres:
        for service in resources.files("services").iterdir():
            if service.name != "common" and (service / "migrations").is_dir():
                await migrate(postgres.url, service.name, f"services.{service.name}")


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))
