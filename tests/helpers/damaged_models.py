"""Files of a model, damaged at random: bytes flipped, cut, moved; settings of any kind and value."""

import json
import math


TARGETS = ("config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors")
VALUES = (
    *(None, True, False, 0, 1, 2, 3, -1, 7, 31, 64, 2**31, 2**63, 10**30, 0.5, -0.5, 1e-30, 1e308, math.nan, math.inf),
    *(
        "",
        "x",
        "1",
        "float16",
        "int8",
        "eager",
        "flash_attention_2",
        "clip",
        "bert",
        "[1, 2]",
        "\ud800",
        "../x",
        "a" * 5000,
    ),
    *(
        [],
        [1],
        [1, 2],
        [0.5] * 3,
        [0] * 3,
        ["a"] * 3,
        [[]],
        {},
        {"a": 1},
        {"height": 32, "width": 40},
        {"shortest_edge": 3},
    ),
)


def damaged(files, rng):
    """One of the `files` of a model, by name, and its content after an accident."""
    name = rng.choice([name for name in TARGETS if name in files])
    content = files[name]
    if name != "model.safetensors" and name != "tokenizer.json" and rng.random() < 0.6:
        return name, _other_value(content, rng)
    return name, _other_bytes(content, rng)


def _other_value(content, rng):
    settings = json.loads(content)
    places = list(_places(settings))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        holder, key = rng.choice(places)
        if rng.random() < 0.1:
            holder.pop(key, None)
        elif rng.random() < 0.2 and isinstance(holder.get(key), int):
            holder[key] = holder[key] * rng.choice((2, -1, 10)) + rng.choice((0, 1))
        else:
            holder[key] = rng.choice(VALUES)
    return json.dumps(settings).encode()


def _places(settings):
    for key, value in settings.items():
        yield settings, key
        if isinstance(value, dict):
            yield from _places(value)


def _other_bytes(content, rng):
    data = bytearray(content)
    # most of a file of weights is numbers, and what can go wrong is before them
    end = min(len(data), 6_000) if rng.random() < 0.8 else len(data)
    start, stop = sorted(rng.randrange(end) for _ in range(2))
    what = rng.choice(("flip", "cut", "swap", "drop", "repeat", "zero", "text", "empty"))
    if what == "flip":
        for _ in range(rng.choice((1, 1, 3, 20))):
            data[rng.randrange(end)] ^= 1 << rng.randrange(8)
    elif what == "cut":
        del data[rng.randrange(len(data)) :]
    elif what == "swap":
        middle = (start + stop) // 2
        data[start:stop] = data[middle:stop] + data[start:middle]
    elif what == "drop":
        del data[start : min(stop, start + rng.choice((1, 2, 50)))]
    elif what == "repeat":
        data[start:start] = data[start : min(stop, start + 30)]
    elif what == "zero":
        data[start : min(stop, start + 8)] = bytes(min(stop, start + 8) - start)
    elif what == "text":
        data[start : start + 4] = rng.choice((b"null", b'"a":', b"\xff\xfe\x00\x01", b"9999", b"[[[[", b"true"))
    else:
        data = bytearray(
            rng.choice((b"", b"{}", b"[]", b"null", b"version https://git-lfs.github.com/spec/v1\noid sha256:0"))
        )
    return bytes(data)
