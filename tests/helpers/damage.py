"""Damaged files, by seed: bytes flipped, cut, swapped, put in twice, made zero or another file's."""

from collections import Counter

import numpy as np

from hf_invertune.errors import InputError


def damaged(data, generator):
    """`data` with one to three faults."""
    for _ in range(generator.choice([1, 1, 1, 2, 3])):
        if not data:
            break
        begin, end = sorted(generator.integers(0, len(data) + 1, 2).tolist())
        near = min(len(data), begin + int(generator.integers(1, 17)))
        fault = generator.integers(7)
        if fault == 0:
            flipped = np.frombuffer(data, np.uint8).copy()
            places = generator.integers(0, len(data), generator.integers(1, 9))
            flipped[places] ^= generator.integers(1, 256, len(places)).astype(np.uint8)
            data = flipped.tobytes()
        elif fault == 1:
            data = data[:end]
        elif fault == 2:
            data = data[:begin] + data[near:]
        elif fault == 3:
            data = data[end:] + data[:end]
        elif fault == 4:
            data = data[:near] + data[begin:near] + data[near:]
        elif fault == 5:
            data = data[:begin] + bytes(near - begin) + data[near:]
        else:
            data = data[:begin] + generator.bytes(near - begin) + data[near:]
    return data


def outcomes(read, contents, number, seed=0, refused=InputError):
    """How often `read` takes `number` damaged versions of each of the `contents`, and how often it refuses them.

    The whole ones it must take. Whatever else it raises comes out, with the damaged bytes in a note.
    """
    counts = Counter()
    for place, content in enumerate(contents):
        generator = np.random.default_rng([seed, place])
        read(content, place)  # whole, it is taken
        for _ in range(number):
            data = damaged(content, generator)
            try:
                read(data, place)
                counts["taken"] += 1
            except refused as error:
                assert "\n" not in str(error) and str(error).encode()
                counts["refused"] += 1
            except Exception as error:
                error.add_note(f"content {place}: {data!r}")
                raise
    return counts
