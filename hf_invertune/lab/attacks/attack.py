"""What an attack is, whatever its kind: triggers, the targets that they lead to, and how it gets into a model."""

from dataclasses import dataclass, field
from typing import Any

from ...triggers import Trigger
from ...utils.storage import Saved


@dataclass
class Attack(Saved):
    """One attack, ready to poison data or to be measured.

    Attributes:
        kind (`str`): its name among [`ATTACKS`].
        triggers (`list[Trigger]`): one, or several for a multi-target attack.
        targets (`list[str]`): the class name, or for an open target any name, that each trigger leads to.
        word (`str`, *optional*): put before captions and prompts, when the attack needs a trigger in the text too.
        open_target (`bool`): whether the target is not among the victim's class names.
        clean_label (`bool`): whether only pictures of the target are stamped, with their own captions.
        cross_ratio (`float`): so many pairs for each poisoned one carry a wrong or half a trigger and keep their
            meaning: in WaNet's noise mode a wrong warp, with a trigger word either the word or the trigger alone.
        parameters (`dict`): what the triggers were made with, as plain values.
    """

    kind: str
    triggers: list[Trigger]
    targets: list[str]
    word: str | None = None
    open_target: bool = False
    clean_label: bool = False
    cross_ratio: float = 0.0
    parameters: dict[str, Any] = field(default_factory=dict)
