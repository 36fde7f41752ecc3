"""Mercat as it is measured: one platform with everything on, one worker, a publisher, people who pay, and the count of
calls that must have been charged in the end."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
from mercat.billing.v1 import billing_pb2

from benchmarks import processes
from benchmarks.load import Load
from benchmarks.measure import Round
from tests.platform import USD, Account, Platform

PRICE = 1_000_000  # nanos per million calls, or tokens: each costs one nano, so that the money spent counts them
_CREDIT = 100 * USD
_SETTLED = 60.0  # seconds for the last record to be charged


class Mercat:
    """A running platform. Stopped by leaving the `with`."""

    def __init__(self, home: Path, *, threads: int) -> None:
        self.platform = Platform(home, workers=1, env={"MERCAT_THREADS": str(threads)})
        self.calls = 0  # those that were answered OK; of text models their tokens
        self.slowest = 0.0  # seconds from the end of a round until all its calls were charged
        self._consumers: list[Account] = []
        self._publisher: Account | None = None

    def __enter__(self) -> "Mercat":
        self.platform.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.platform.stop()

    @property
    def envoy(self) -> str:
        """The front door, `host:port`."""
        return self.platform.grpc

    @property
    def worker(self) -> str:
        """The worker itself, `host:port`."""
        return self.platform.addresses()["worker-0"]

    @property
    def publisher(self) -> Account:
        if self._publisher is None:
            self._publisher = self.platform.publisher()
        return self._publisher

    @property
    def consumer(self) -> Account:
        """The first consumer."""
        return self.consumers(1)[0]

    @property
    def key(self) -> Mapping[str, str]:
        """The first consumer's credential, as metadata or headers."""
        return dict(self.consumer.metadata)

    def consumers(self, number: int) -> Sequence[Account]:
        """So many people, signed up when they are not there yet, each with credit for a hundred billion calls."""
        while len(self._consumers) < number:
            self._consumers.append(self.platform.sign_up(credit=_CREDIT))
        return self._consumers[:number]

    def publish(self, graph: bytes, *, batch: int, preferred: Sequence[int] = ()) -> str:
        return self.platform.publish(
            self.publisher, graph, batch=batch, price={"requests": PRICE}, preferred_batch_sizes=preferred
        )

    def publish_text(self, file: Path) -> str:
        """A text model, whose output tokens are what is charged."""
        return self.platform.publish(self.publisher, file.read_bytes(), price={"output_tokens": PRICE})

    def postgres(self) -> str:
        """The database's URL, as this platform's own processes were told."""
        return psutil.Process(self.platform.pids()["control"]).environ()["MERCAT_POSTGRES_URL"]

    def turn(self, generator: str, load: Callable[[], Load]) -> Round:
        """One round; it ends when all its calls are charged, so that what they cost later is counted with them and
        does not fall into somebody else's round."""
        pids = self.platform.pids()
        before = processes.cpu_seconds(pids)
        got = load()
        self.calls += got.ok
        self.slowest = max(self.slowest, self.settle())
        after = processes.cpu_seconds(pids)
        return Round(got, processes.spent(before, after) | {generator: got.generator_seconds})

    def settle(self) -> float:
        """Waits until every call is charged; answers how long that took, seconds. Gives up after a minute: `money`
        tells what is missing."""
        began = time.monotonic()
        while self.charged() < self.calls and time.monotonic() - began < _SETTLED:
            time.sleep(0.1)
        return time.monotonic() - began

    def charged(self) -> int:
        """Calls charged so far, as the wallets tell."""
        return sum(_CREDIT - consumer.balance() for consumer in self._consumers)

    def money(self) -> tuple[bool, str]:
        """Whether the books are clean and every call that was answered was charged once, and that in words."""
        self.settle()
        checked = self.platform.admin().billing.CheckLedger(billing_pb2.CheckLedgerRequest(), timeout=900)
        charged = self.charged()
        good = checked.clean and charged == self.calls
        return good, (
            f"{self.calls:,} calls and tokens answered OK, {charged:,} charged; {checked.postings_checked:,} postings "
            f"checked: "
            f"{'clean' if checked.clean else [f'{d.code} {d.subject}' for d in checked.discrepancies[:5]]}; "
            f"the slowest round was charged {self.slowest:.1f} s after its end"
        )
