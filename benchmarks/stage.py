"""What the groups of one run share: its options, its folder, Mercat and the floor, started when first asked for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType

from benchmarks import load, processes, servers
from benchmarks.load import Load
from benchmarks.measure import Round, Side
from benchmarks.mercat import Mercat
from benchmarks.peers import PeerError, Server
from tests import graphs


@dataclass(frozen=True)
class Options:
    """What a run is asked to do.

    Args:
        seconds: of one round.
        rounds: of each side, after a short one to warm up.
        in_flight: calls under way at a time, where a figure does not say otherwise.
        calls: of the group `memory`.
        month: calls of the month that is proven in the group `metering`.
        threads: inside one engine run, for Mercat, the peers and the floor alike.
        peers: other servers run beside Mercat and the floors.
    """

    seconds: float = 5.0
    rounds: int = 5
    in_flight: int = 64
    calls: int = 1_000_000
    threads: int = 1
    peers: bool = True
    month: int = 10_000_000

    def turns(self, sides: int) -> float:
        """About how long so many sides take, seconds: their rounds, a second to warm up, and one around each."""
        return sides * (self.rounds * (self.seconds + 1) + 2)


@dataclass
class Stage:
    """Closed by leaving the `with`. `tell` prints a line; `money` is of every platform that was stopped."""

    options: Options
    folder: Path
    tell: Callable[[str], None]
    _stack: ExitStack = field(default_factory=ExitStack)
    money: list[tuple[bool, str]] = field(default_factory=list)

    def __enter__(self) -> "Stage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @cached_property
    def mercat(self) -> Mercat:
        """The platform that most groups share."""
        return self._stack.enter_context(self.platform("shared"))

    @contextmanager
    def platform(self, name: str) -> Iterator[Mercat]:
        """A Mercat with a home of its own; its books are checked at the end."""
        self.tell("starting Mercat …")
        with Mercat(self.folder / name, threads=self.options.threads) as mercat:
            yield mercat
            self.tell("checking the books …")
            good, said = mercat.money()
            self.money.append((good, f"{name}: {said}"))

    def close(self) -> None:
        """Stops everything and checks the books."""
        self._stack.close()

    @cached_property
    def echo(self) -> Server:
        return self._stack.enter_context(servers.echo(self.folder))

    @cached_property
    def tiny_file(self) -> Path:
        """The tiny graph, 4 → 64 → 4, as a file."""
        path = self.folder / "tiny.onnx"
        path.write_bytes(graphs.tiny())
        return path

    @cached_property
    def tiny(self) -> str:
        """The tiny graph, published."""
        return self.mercat.publish(self.tiny_file.read_bytes(), batch=64)

    def peer(self, name: str, start: Callable[[], Server], notes: list[str]) -> Server | None:
        """A peer that was started, or None with a note why it is left out."""
        if not self.options.peers:
            return None
        try:
            return start()
        except PeerError as error:
            self.tell(f"{name} is left out: {error}")
            notes.append(f"{name} was left out: {error}")
            return None

    def bare(self, name: str, server: Server, request: bytes, *, in_flight: int) -> Side:
        """A server without anything around it as a side, called with one request."""

        def run(seconds: float) -> Round:
            pids = {server.name: server.pid}
            before = processes.cpu_seconds(pids)
            got = load.grpc(server.target, request, self.folder, in_flight=in_flight, seconds=seconds)
            took = processes.spent(before, processes.cpu_seconds(pids))
            return Round(got, took | {"ghz": got.generator_seconds})

        return Side(name, run)

    def charged(self, name: str, call: Callable[[float], Load], *, generator: str = "ghz") -> Side:
        """Mercat as a side: `call(seconds)` makes the load."""
        return Side(name, lambda seconds: self.mercat.turn(generator, lambda: call(seconds)))

    def infer(self, name: str, target: str, request: bytes, *, in_flight: int) -> Side:
        """Mercat as a side, called with one ModelInferRequest by its first consumer."""
        key = self.mercat.key
        return self.charged(
            name,
            lambda seconds: load.grpc(
                target, request, self.folder, in_flight=in_flight, seconds=seconds, metadata=key
            ),
        )  # fmt: skip
