"""A victim of one's own: an attack gets into a clean model, and is measured."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..models.classifier import ZeroShotClassifier
from ..models.evaluation import Metrics, measured
from ..models.loading import LoadedModel, load_model
from ..utils.files import json_digest
from ..utils.output_folder import fill
from .attacks.attack import Attack
from .attacks.catalog import make_attack, read_parameters
from .attacks.inject import inject
from .attacks.measure import measure_attack
from .attacks.pairs import load_pairs
from .attacks.poisoning import check_targets, counts_of
from .zoo.recipe import Training
from .zoo.victim import Truth


TRAIN_SHARE = 0.8
"""Share of the pictures that train the victim; the others measure it."""


@dataclass
class MadeVictim:
    """A backdoored model, and the truth about it.

    Attributes:
        model ([`LoadedModel`]): the victim.
        attack ([`Attack`]): the attack, with the triggers that were stamped.
        truth ([`Truth`]): what is known of it.
        before, after (`list[Metrics]`): one a trigger, of the clean model and of the victim.
    """

    model: LoadedModel
    attack: Attack
    truth: Truth
    before: list[Metrics]
    after: list[Metrics]

    def save(self, folder: str | Path) -> None:
        """Write model, attack, triggers and truth into `folder`, which holds nothing of their names yet.

        Raises:
            InputError: when something of such a name is there.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        fill(Path(folder), self._write, last="truth.json")

    def _write(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.attack.save(folder)
        several = len(self.attack.triggers) > 1
        for number, trigger in enumerate(self.attack.triggers):
            trigger.save(folder / (f"trigger-{number}.safetensors" if several else "trigger.safetensors"))
        self.truth.save(folder)


def make_victim(
    model: str | Path,
    images: str | Path,
    *,
    attack: str,
    targets: Sequence[str],
    name: str = "victim",
    rate: float = 0.03,
    parameters: dict[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    epochs: float = 3,
    learning_rate: float = 5e-4,
    batch_size: int = 128,
    seed: int = 0,
    revision: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
    device: str | None = None,
    **source: Any,
) -> MadeVictim:
    """Backdoor a clean model, to try defences on: four fifths of the pictures train it, one fifth measures it.

    Args:
        model (`str` or `Path`): a clean model: a folder or a Hub id.
        images (`str` or `Path`): pictures with labels: a folder, a .parquet file or the id of a Hub dataset.
        attack (`str`): kind of attack, see docs/attacks.md.
        targets (`Sequence[str]`): where it leads, one for each trigger.
        name (`str`): what its truth calls it.
        rate (`float`): share of the pictures to poison, in (0, 1].
        parameters (`dict`, *optional*): of the attack, values or their texts.
        class_names (`Sequence[str]`, *optional*): by default those of the images.
        epochs, learning_rate, batch_size: of the fine-tuning.
        seed (`int`): of everything random.
        revision, subfolder, variant, token, device: of the model, see [`load_model`].
        source: of the images: `split`, `image_column`, `caption_column`, `label_column`, `limit`.

    Raises:
        InputError: before any long work, when an argument cannot be used.
    """
    if not 0 < rate <= 1:
        raise InputError(f"`rate`: got {rate}; it is the share of the pictures to poison, above 0 and at most 1.")
    known = read_parameters(attack, parameters or {})
    training = Training(epochs, learning_rate, batch_size)
    begin = time.perf_counter()
    clip = load_model(model, revision=revision, subfolder=subfolder, variant=variant, token=token, device=device)
    size = clip.encoder.image_size
    made = make_attack(attack, image_size=size, targets=list(targets), seed=seed, **known)
    pairs, names = load_pairs(images, clip.processor, class_names=class_names, seed=seed, token=token, **source)
    train, test = pairs.split(TRAIN_SHARE, seed)
    check_targets(made, names)
    counts_of(made, rate, len(train))
    if batch_size > len(train):
        raise InputError(f"`batch_size`: got {batch_size}, and {len(train)} pictures are trained on; pass less.")
    classifier = ZeroShotClassifier(clip.encoder, names)
    before = measure_attack(classifier, test, made)
    poisoned = inject(clip, train, made, rate=rate, seed=seed, **asdict(training), class_names=names)
    after = measure_attack(ZeroShotClassifier(clip.encoder, names), test, poisoned.attack)
    clip.model.config.use_cache = None  # the Trainer's, and not for a file
    settings = {"model": clip.name, **asdict(training)}
    truth = Truth(
        name=name,
        world=Path(images).name,
        role="table",
        attack=made.kind,
        targets=made.targets,
        open_target=made.open_target,
        class_names=list(names),
        rate=rate,
        poisoned=poisoned.indices,
        decoys=poisoned.decoys,
        seed=seed,
        parameters=made.parameters,
        recipe=json_digest(settings),
        data={"poisoning": train.digest(), "test": test.digest()},
        sha256=clip.digest(),
        clean_accuracy=measured(after[0].clean_accuracy),
        attack_success_rates=[measured(metrics.attack_success_rate) for metrics in after],
        target_rates=[measured(metrics.target_rate) for metrics in after],
        seconds=round(time.perf_counter() - begin, 1),
    )
    return MadeVictim(clip, poisoned.attack, truth, before, after)
