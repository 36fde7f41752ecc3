"""How long things take, and how much of a prompt fits between two steps."""

_MOST = 128  # tokens of a prompt that are run at once while nobody's answer waits; more at once is no faster
_LEAST, _GRAIN = 6, 2  # fewer at once are slow; multiples of which are run
_SHARE = 1.15  # of a step's time, that a piece between two steps may take
# Tokens of what is run at once beside answers too: it is soon over, and in pieces it would take more from everybody.
_SHORT = 64
_TILE = 16  # a divisor of the attention's tiles, which depend on the model's heads and the processor's cache
_SMOOTH = 0.2  # weight of the newest measurement


class Pace:
    """Seconds that a step, a token of a prompt and a whole call take; 0 until the first was measured."""

    def __init__(self) -> None:
        self.step = self.token = self.call = 0.0

    def stepped(self, took: float) -> None:
        self.step = _smooth(self.step, took)

    def read(self, tokens: int, took: float) -> None:
        self.token = _smooth(self.token, took / tokens)

    def answered(self, took: float) -> None:
        self.call = _smooth(self.call, took)

    def piece(self, left: int, rows: int, prompts: int) -> int:
        """Tokens of a prompt to run next, of those left. During a long prompt answers under way, `rows` of them, come
        about half as fast, and never in jerks; slower where more prompts than they wait for their first token."""
        if not rows or left <= _SHORT:
            return cut(left, _MOST)
        share = _SHARE * max(1.0, prompts / rows)
        fit = min(max(int(share * self.step / self.token) // _GRAIN * _GRAIN, _LEAST), _MOST)
        return cut(left, fit)


def cut(left: int, most: int) -> int:
    """About `most` tokens, an even number, of those left, and so that no tile of the attention has a single one where
    another division of the prompt would not give it one: single tokens round differently."""
    size = min(left, most)
    if left - size == 1:
        size -= 1
    elif 1 < size == left and size % _TILE == 1:
        size -= 2
    return size


def _smooth(old: float, new: float) -> float:
    return old + (new - old) * _SMOOTH if old else new
