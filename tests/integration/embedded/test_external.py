"""The whole platform on servers somebody else runs: a PostgreSQL, a Redis, a NATS given by their addresses."""

from pathlib import Path

from services.embedded.nats import Nats
from services.embedded.postgres import Postgres
from services.embedded.valkey import Valkey
from tests import graphs
from tests.platform import USD, Platform
from tests.robustness.oracle import judge
from tests.robustness.traffic import Caller


async def test_a_call_is_charged_on_external_servers(tmp_path: Path) -> None:
    async with (
        Postgres(tmp_path / "pg") as postgres,
        Valkey(tmp_path / "vk") as valkey,
        Nats(tmp_path / "nats") as nats,
    ):
        env = {"MERCAT_POSTGRES_URL": postgres.url, "MERCAT_REDIS_URL": valkey.url, "MERCAT_NATS_URL": nats.url}
        with Platform(tmp_path / "home", env=env) as platform:
            states = platform.states()
            assert {states[name] for name in ("postgres", "valkey", "nats")} == {"external"}
            publisher, consumer = platform.publisher(), platform.sign_up(credit=USD)
            model = platform.publish(publisher, graphs.tiny(), batch=8, price={"requests": 10**12})
            caller = Caller(platform.grpc, consumer.api_key, model)
            assert await caller.call() == "OK"
            judge(platform, consumer, caller.seen, credit=USD, price=1_000_000, rate=False)
        assert not list((tmp_path / "home").glob("postgres*"))
