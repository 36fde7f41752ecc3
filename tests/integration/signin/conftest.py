"""A platform that sends its mail to a real SMTP server here, whose people have accounts elsewhere, with a clock that
can be moved."""

from collections.abc import Iterator

import pytest
from aiosmtpd.controller import Controller

from tests.integration.signin.elsewhere import Elsewhere
from tests.integration.signin.people import Mailbox
from tests.platform import Platform, free_port


@pytest.fixture(scope="session")
def mailbox() -> Iterator[Mailbox]:
    box = Mailbox(free_port())
    controller = Controller(box, hostname="127.0.0.1", port=box.port)
    controller.start()
    yield box
    controller.stop()


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[Elsewhere]:
    places = Elsewhere()
    yield places
    places.stop()


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory, mailbox: Mailbox, elsewhere: Elsewhere) -> Iterator[Platform]:
    """Shared by the tests of this folder, each of which makes its own people."""
    with Platform(tmp_path_factory.mktemp("signin") / "home", env=mailbox.settings | elsewhere.settings) as running:
        yield running
