"""Requests that show each demo model at work, as JSON bodies of Predict without the model."""

import json
import math
from typing import Any

# Rows of letters drawn in 5 × 7 dots, one bit a dot.
_LETTERS = {
    "M": (0x11, 0x1B, 0x15, 0x15, 0x11, 0x11, 0x11),
    "E": (0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x1F),
    "R": (0x1E, 0x11, 0x11, 0x1E, 0x14, 0x12, 0x11),
    "C": (0x0E, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0E),
    "A": (0x0E, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11),
    "T": (0x1F, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04),
}
_CODE = b"import sys\n\n\ndef main() -> None:\n    print(len(sys.argv))\n\n\nif __name__ == '__main__':\n    main()\n"


def _request(*tensors: tuple[str, str, list[int], list[Any]]) -> str:
    inputs = [{"name": n, "datatype": d, "shape": s, "data": v} for n, d, s, v in tensors]
    return json.dumps({"inputs": inputs}, separators=(",", ":"))


def file_type() -> str:
    """A short Python file, as Magika wants it: the first and the last 1,024 bytes, padded with 256."""
    data = _CODE.strip()
    padding = [256] * (1024 - len(data))
    return _request(("bytes", "INT32", [1, 2048], [*data, *padding, *padding, *data]))


def sentences() -> str:
    """ "A cat sleeps." and "A kitten naps.", tokenised and padded to one length."""
    ids = [[101, 1037, 4937, 25126, 1012, 102, 0, 0], [101, 1037, 18401, 18996, 2015, 1012, 102, 0]]
    flat = [token for row in ids for token in row]
    mask = [int(token > 0) for token in flat]
    return _request(
        ("input_ids", "INT64", [2, 8], flat),
        ("attention_mask", "INT64", [2, 8], mask),
        ("token_type_ids", "INT64", [2, 8], [0] * 16),
    )


def conversation() -> str:
    """A conversation of one request, answered as the model does it best, and always alike."""
    said = {"role": "user", "content": "Write a haiku about the sea."}
    sampling = {"maxTokens": 60, "temperature": 0.2, "repetitionPenalty": 1.1, "seed": 1}
    return json.dumps({"messages": [said], "sampling": sampling})


def sound() -> str:
    """36 ms of a 150 Hz tone with overtones, at 16 kHz, and the state that a stream starts with."""
    wave = [sum(math.sin(2 * math.pi * 150 * k * n / 16_000) / k for k in range(1, 9)) for n in range(576)]
    return _request(
        ("input", "FP32", [1, 576], [round(0.3 * value, 3) for value in wave]),
        ("state", "FP32", [2, 1, 128], [0] * 256),
        ("sr", "INT64", [], [16_000]),
    )


def picture(height: int, width: int) -> str:
    """The word MERCAT, black on white, its letters 28 pixels high. Values from -1 (black) to 1 (white)."""
    dot, word = 4, "MERCAT"
    left, top = (width - dot * (6 * len(word) - 1)) // 2, (height - 7 * dot) // 2
    rows = [[1] * width for _ in range(height)]
    for place, letter in enumerate(word):
        for y, bits in enumerate(_LETTERS[letter]):
            for x in (x for x in range(5) if bits & (0x10 >> x)):
                at = left + dot * (6 * place + x)
                for row in rows[top + dot * y : top + dot * (y + 1)]:
                    row[at : at + dot] = [-1] * dot
    plane = [value for row in rows for value in row]
    return _request(("x", "FP32", [1, 3, height, width], plane * 3))
