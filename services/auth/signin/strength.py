"""Whether a password can be guessed: by the lists of those that leaked, and by zxcvbn's estimate of the guesses it
takes (Wheeler, USENIX Security 2016)."""

import asyncio
import logging
from collections.abc import Iterable

from zxcvbn import zxcvbn

from services.auth.signin.leaked import LeakedPasswords
from services.common.errors import InvalidFields, Violation

log = logging.getLogger(__name__)
LEAST = 3  # of 0 to 4: 10^8 guesses, which with argon2 take years
_LONGEST = 72  # characters that are looked at, for zxcvbn takes long over more
_REST = 6  # letters and digits that there must be beside what everybody knows of a person


class Strength:
    """Judges passwords that are about to be set."""

    def __init__(self, leaked: LeakedPasswords) -> None:
        self._leaked = leaked

    async def check(self, password: str, personal: Iterable[str]) -> None:
        """Raises InvalidFields that says what is wrong with the field `password`, and what to do. `personal`: words an
        attacker would try of this person: name, email address. Off the event loop: it takes some milliseconds."""
        problem = await asyncio.to_thread(self._problem, password, [text for text in personal if text])
        if problem:
            raise InvalidFields(violations=[Violation("password", problem)])

    def _problem(self, password: str, personal: list[str]) -> str:
        try:
            leaked = self._leaked.has(password)
        except OSError as e:  # the operator's to repair; nobody is kept from signing up by it
            log.error("the list of leaked passwords cannot be read: %s", e)
            leaked = False
        if leaked:
            return "is on the lists of passwords that leaked elsewhere; choose one that you use nowhere else"
        return weakness(password, personal)


def weakness(password: str, personal: Iterable[str] = ()) -> str:
    """What is wrong with a password, and what to do; empty when it is good."""
    words = [w for text in personal for w in (text, *text.replace("@", " ").replace(".", " ").split()) if len(w) > 2]
    left = password.lower()
    for word in sorted((w.lower() for w in [*words, "mercat"]), key=len, reverse=True):
        left = left.replace(word, "")
    if len(left) < len(password) and sum(map(str.isalnum, left)) < _REST:
        return "is made of your name, your address or Mercat's; choose words that have nothing to do with you"
    found = zxcvbn(password[:_LONGEST], user_inputs=[*words, "mercat"])
    if found["score"] >= LEAST:
        return ""
    feedback = found["feedback"]
    why = (feedback["warning"] or "can be guessed").rstrip(".")
    advice = feedback["suggestions"] or ["Add another word or two. Uncommon words are better."]
    return f"is too easy to guess: {why[0].lower()}{why[1:]}. {' '.join(advice)}"
