"""One seed for a whole run; every use of randomness names its stream."""

STREAMS = {
    "split": 0,
    "simulation": 0,
    "gathering": 0,
    "race": 0,
    "inversion": 0,
    "neurons": 0,
    "tuning": 0,
    "pursuit": 0,
    "second scan": 1,
}
"""By how much the seed of each stream differs from that of the run."""


def stream(seed: int, name: str, index: int = 0) -> int:
    """The seed of one use of randomness.

    Args:
        seed (`int`): that of the run.
        name (`str`): one of [`STREAMS`].
        index (`int`): which of several uses of one kind.
    """
    return seed + STREAMS[name] + index
