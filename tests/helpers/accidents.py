"""Files of a model after an accident, by seed: damaged bytes, or settings of any kind and value."""

import json
import math

from damage import damaged


TARGETS = ("config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors")
SETTINGS = TARGETS[:3]
VALUES = (
    *(None, True, False, 0, 1, 2, 3, -1, 7, 31, 64, 2**31, 2**63, 10**30, 0.5, -0.5, 1e-30, 1e308, math.nan, math.inf),
    *("", "x", "1", "float16", "int8", "eager", "flash_attention_2", "clip", "bert", "[1, 2]", "\ud800", "../x"),
    *("a" * 5000, [], [1], [1, 2], [0.5] * 3, [0] * 3, ["a"] * 3, [[]], {}, {"a": 1}, {"height": 32, "width": 40}),
)


def accident(files, generator):
    """One of the `files` of a model, by name, and what it holds then."""
    name = TARGETS[generator.integers(len(TARGETS))]
    content = files[name]
    if name in SETTINGS and generator.random() < 0.6:
        return name, _other_values(content, generator)
    # most of a file of weights is numbers, and what can go wrong is before them
    end = 6_000 if generator.random() < 0.8 else len(content)
    return name, damaged(content[:end], generator) + content[end:]


def _other_values(content, generator):
    settings = json.loads(content)
    places = list(_places(settings))
    for _ in range(generator.choice([1, 1, 1, 2, 5])):
        holder, key = places[generator.integers(len(places))]
        chance = generator.random()
        if chance < 0.1:
            holder.pop(key, None)
        elif chance < 0.3 and isinstance(holder.get(key), int):
            holder[key] = holder[key] * int(generator.choice([2, -1, 10])) + int(generator.integers(2))
        else:
            holder[key] = VALUES[generator.integers(len(VALUES))]
    return json.dumps(settings).encode()


def _places(settings):
    for key, value in settings.items():
        yield settings, key
        if isinstance(value, dict):
            yield from _places(value)
