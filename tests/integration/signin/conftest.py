"""A platform that sends its mail to a real SMTP server here, whose people have accounts elsewhere, with a clock that
can be moved."""

from collections.abc import Callable, Iterator

import pytest
from aiosmtpd.controller import Controller
from mercat.auth.v1 import auth_pb2, signin_pb2

from tests.dns_server import DnsServer
from tests.integration.signin.companies import Company, subject
from tests.integration.signin.elsewhere import Elsewhere
from tests.integration.signin.people import Mailbox, Member
from tests.platform import PASSWORD, Platform, free_port


@pytest.fixture(scope="package")
def mailbox() -> Iterator[Mailbox]:
    box = Mailbox(free_port())
    controller = Controller(box, hostname="127.0.0.1", port=box.port)
    controller.start()
    yield box
    controller.stop()


@pytest.fixture(scope="package")
def elsewhere() -> Iterator[Elsewhere]:
    places = Elsewhere()
    yield places
    places.stop()


@pytest.fixture(scope="package")
def names() -> Iterator[DnsServer]:
    server = DnsServer()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def platform(
    tmp_path_factory: pytest.TempPathFactory, mailbox: Mailbox, elsewhere: Elsewhere, names: DnsServer
) -> Iterator[Platform]:
    """Shared by the tests of this folder, each of which makes its own people."""
    sso = {"MERCAT_DNS_SERVER": names.address, "MERCAT_SSO_PRIVATE_NETWORKS": "true"}
    env = mailbox.settings | elsewhere.settings | sso
    with Platform(tmp_path_factory.mktemp("signin") / "home", env=env) as running:
        yield running


@pytest.fixture
def unproved(platform: Platform, elsewhere: Elsewhere) -> Company:
    owner = platform.organisation(platform.sign_up(auth_pb2.ROLE_PUBLISHER))
    return Company(owner, f"{owner.profile.organisation}.example", elsewhere)


@pytest.fixture
def company(unproved: Company, names: DnsServer) -> Company:
    unproved.connect(default_role="developer")
    unproved.prove(names)
    return unproved


@pytest.fixture
def employee(platform: Platform, mailbox: Mailbox) -> Callable[[str], Member]:
    """Somebody with a password whose address in a domain is verified."""

    def made(domain: str, *, verified: bool = True) -> Member:
        name = subject()
        email = f"{name}@{domain}"
        request = auth_pb2.SignUpRequest(email=email, username=name, password=PASSWORD)
        signed = platform.anonymous.auth.SignUp(request)
        person = Member(platform, email, signed.session, signed.profile)
        if verified:
            person.passwords.VerifyEmail(signin_pb2.VerifyEmailRequest(code=mailbox.code(email)))
        return person

    return made
