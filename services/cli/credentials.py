"""What proves who calls, kept between commands and renewed."""

from collections.abc import Callable

from mercat.auth.v1 import auth_pb2

from services.cli.session import Login, Logins, Refusal, Target, name_of
from services.common.errors import SsoRequired, Unauthenticated

_EARLY = 30.0  # seconds before its end from which an access token is renewed


class Credentials:
    """What proves who calls: an API key, or the profile's login at this server, renewed when its time comes."""

    def __init__(self, target: Target, api_key: str, profile: str, logins: Logins, now: Callable[[], float]) -> None:
        self._api_key = api_key
        self._profile = profile
        self._logins = logins
        self._server = name_of(target)
        self._now = now
        self.refresh: Callable[..., auth_pb2.Session] | None = None
        self.reauthenticate: Callable[[str, str, str], auth_pb2.Session] | None = None
        self.ask: Callable[[str], str] | None = None  # a person for their password, or a code; None: there is none

    def current(self) -> str:
        """The credential to send; empty when there is none. Raises MercatError when renewing fails for another reason
        than that the session has ended."""
        if self._api_key:
            return self._api_key
        login = self._logins.get(self._profile, self._server)
        if login is None:
            return ""
        if login.access_expires_at - self._now() > _EARLY:
            return login.access_token
        return self.renewed(login.access_token)

    def renewed(self, stale: str) -> str:
        """A credential other than `stale`; empty when there is none to be had."""
        if self._api_key or self.refresh is None:
            return ""
        with self._logins.locked():
            login = self._logins.get(self._profile, self._server)  # another command may have renewed it meanwhile
            if login is None:
                return ""
            if login.access_token != stale and login.access_expires_at - self._now() > _EARLY:
                return login.access_token
            try:
                session = self.refresh(login.refresh_token)
            except SsoRequired:
                raise  # it is as good as before for other organisations
            except Unauthenticated:
                self._logins.put(self._profile, self._server, None)
                return ""
            fresh = kept(login.email, login.username, session, login.organisation)
            self._logins.put(self._profile, self._server, fresh)
            return session.access_token

    def proved(self, means: str) -> str:
        """A credential whose owner has just proved again who they are, by their `password` or a `code`; empty when
        nobody can be asked. Raises MercatError when it was wrong."""
        login = None if self._api_key else self.login()
        if login is None or self.ask is None or self.reauthenticate is None:
            return ""
        session = self.reauthenticate(login.access_token, means, self.ask(means))
        self.keep_access(session)
        return session.access_token

    def keep_access(self, session: auth_pb2.Session) -> None:
        """Takes another access token for the login that there is."""
        with self._logins.locked():
            login = self.login()
            if login is not None:
                login.access_token = session.access_token
                login.access_expires_at = float(session.access_expires_at.ToMilliseconds()) / 1e3
                self._logins.put(self._profile, self._server, login)

    def login(self) -> Login | None:
        return self._logins.get(self._profile, self._server)

    def switch(self, organisation: str) -> None:
        """Renews the login for another organisation. Raises MercatError, or Refusal when there is no login."""
        with self._logins.locked():
            login = self._logins.get(self._profile, self._server)
            if login is None or self.refresh is None:
                raise Refusal("You are not logged in.", "log in with `mercat login`; a key is for one organisation")
            session = self.refresh(login.refresh_token, organisation)
            fresh = kept(login.email, login.username, session, organisation)
            self._logins.put(self._profile, self._server, fresh)

    def keep(self, profile: auth_pb2.Profile, session: auth_pb2.Session) -> None:
        fresh = kept(profile.email, profile.username, session, profile.organisation)
        with self._logins.locked():
            self._logins.put(self._profile, self._server, fresh)

    def forget(self) -> None:
        with self._logins.locked():
            self._logins.put(self._profile, self._server, None)


def kept(email: str, username: str, session: auth_pb2.Session, organisation: str) -> Login:
    """A session as it is kept."""
    return Login(
        email, username, session.access_token, float(session.access_expires_at.ToMilliseconds()) / 1e3,
        session.refresh_token, float(session.refresh_expires_at.ToMilliseconds()) / 1e3, organisation,
    )  # fmt: skip
