"""Where do triggers gather embeddings? The first stage of a scan; it needs no labels, so it finds targets that have none."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..data.pixels import as_float
from ..models.encoder import DualEncoder
from ..triggers import Trigger
from ..utils.progress import progress
from ..utils.seeds import stream
from ..utils.sharing import shared
from ..utils.storage import Saved
from .configs import GatheringConfig
from .descent import Descent
from .families import TriggerFamily


SAME = 0.7
"""Cosine of two directions from which they are one place."""
PROBED = 16
"""Images on which a probe is tried."""
TRIED = 64
"""Images by which is decided which starts go on."""
READ_AT_ONCE = 128
"""Pictures that go through the model together where probes are tried."""


@dataclass
class Gathering(Saved):
    """A place in the embedding space to which one trigger brings all pictures.

    Attributes:
        family (`str`): the kind of the trigger's family.
        trigger (`Trigger`): the trigger.
        concentration (`float`): mean pairwise cosine of triggered pictures that the trigger was not learnt on, in [0, 1],
            see [`concentration`]. Whatever a picture shows, a planted trigger brings it to one place.
        label (`int`, *optional*): the class that the place is read as: most pictures are. With a target outside the names it
            is but the nearest of them. None where no labels were looked at.
        share (`float`, *optional*): of the pictures that are read so.
        nearest (`float`): cosine of the place with the nearest clean picture; low where no picture belongs.
        direction (`Tensor`): D, a unit vector: the place.
    """

    family: str
    trigger: Trigger
    concentration: float
    label: int | None
    share: float | None
    nearest: float
    direction: Tensor


class Gatherer:
    """Learns triggers that bring pictures together, wherever that is.

    Args:
        encoder ([`DualEncoder`]): the suspicious model.
        head (`torch.Tensor`, *optional*): K x D, unit embeddings of the labels that places are called by, as
            [`ZeroShotClassifier`] has them; without it they are called by none.
        config ([`GatheringConfig`], *optional*): settings.
        seed (`int`): that of the run.
    """

    def __init__(
        self, encoder: DualEncoder, head: Tensor | None, config: GatheringConfig | None = None, seed: int = 0
    ):
        self.encoder, self.head = encoder, head
        self.config, self.seed = config or GatheringConfig(), seed

    def gather(self, pixels: Tensor) -> list[Gathering]:
        """The places that the triggers of each family found, each once a family, the most concentrated first.

        Args:
            pixels (`torch.Tensor`): N x 3 x H x W clean images, float in [0, 1] or uint8; any classes.
        """
        return [place for family in self.config.families for place in distinct(self.starts(pixels, family))]

    def starts(
        self, pixels: Tensor, family: TriggerFamily, start: Sequence[Trigger] = (), towards: Tensor | None = None
    ) -> list[Gathering]:
        """What became of the starts of one family: all have a trial, and those that gather best go on.

        Args:
            pixels (`torch.Tensor`): as in [`gather`].
            family ([`TriggerFamily`]): what the triggers look like.
            start (`Sequence[Trigger]`): what the first starts go on from. The others are the best of the family's probes,
                or random.
            towards (`Tensor`, *optional*): D, a unit vector: the one place to reach. Without it, any will do.
        """
        generator = torch.Generator().manual_seed(stream(self.seed, "gathering"))
        learnt_on, held = apart(pixels, generator)
        encoder = self.encoder
        with encoder.frozen():
            clean = encoder.embed_pixels(pixels)
            aim = Aim(clean.mean(0), None if towards is None else towards.to(encoder.device))
            ranked = self._ranked(family.probes(), f"Probing {family.kind} triggers", learnt_on[:PROBED], aim)
            best = ranked[: self.config.probed]
            count = len(best) or self.config.starts
            random = [None] * max(0, count - len(start) - len(best))
            first = [*start, *best, *random][:count]
            steps, trial = self.config.steps, min(self.config.trial, self.config.steps)
            triggers = self._learn(learnt_on, family, aim, first, generator, trial)
            if trial < steps:
                title = f"Choosing among {family.kind} triggers"
                going = self._ranked(triggers, title, learnt_on[:TRIED], aim)[: self.config.kept]
                triggers = self._learn(learnt_on, family, aim, going, generator, steps - trial)

            def measured(rows: list[int]) -> list[Gathering]:
                return [self.measure(triggers[row], family.kind, held, clean) for row in rows]

            return shared(measured, len(triggers))

    @torch.no_grad()
    def _ranked(self, triggers: list[Trigger], title: str, pixels: Tensor, aim: "Aim") -> list[Trigger]:
        """The triggers, those that come nearest the aim first."""
        encoder = self.encoder
        clean = as_float(pixels).to(encoder.device)
        at_once = max(1, READ_AT_ONCE // len(clean))

        def nearness(rows: list[int]) -> list[float]:
            parts = [rows[begin : begin + at_once] for begin in range(0, len(rows), at_once)]
            values = []
            for part in progress(parts, title):
                stamped = torch.stack([triggers[row].on(encoder.device)(clean) for row in part])
                values.append(aim(encoder.embed_images(stamped)))
            return torch.cat(values).tolist() if values else []

        values = shared(nearness, len(triggers))
        return [one for _, one in sorted(zip(values, triggers, strict=True), key=lambda pair: -pair[0])]

    def _learn(
        self,
        pixels: Tensor,
        family: TriggerFamily,
        aim: "Aim",
        start: Sequence[Trigger | None],
        generator: torch.Generator,
        steps: int,
    ) -> list[Trigger]:
        """Bring each start nearer to the aim."""
        config, encoder = self.config, self.encoder
        title = f"Gathering pictures by {family.kind} triggers"
        descent = Descent(encoder, family, title, steps, config.batch_size, config.learning_rate)

        def figures(clean: Tensor, trigger: Trigger, rows: list[int]) -> Tensor:
            return -aim(encoder.embed_images(trigger(clean))).unsqueeze(0)

        learnt = descent.run(pixels, start, len(start), generator, figures)
        return [trigger for trigger, _ in learnt]

    @torch.no_grad()
    def measure(self, trigger: Trigger, family: str, pixels: Tensor, clean: Tensor) -> Gathering:
        """Where `trigger`, of the kind `family`, brings `pixels`, among the embeddings of `clean` pictures (N x D)."""
        embeddings = self.encoder.embed_pixels(pixels, trigger.on(self.encoder.device))
        direction = normalize(embeddings.mean(0), dim=-1)
        label, share = None, None
        if self.head is not None:
            read = (embeddings @ self.head.T).argmax(-1)
            label = int(read.mode().values)
            share = float((read == label).float().mean())
        return Gathering(
            family=family,
            trigger=trigger,
            concentration=float(concentration(embeddings, clean.mean(0))),
            label=label,
            share=share,
            nearest=float((clean @ direction).max()),
            direction=direction.cpu(),
        )


@dataclass(frozen=True)
class Aim:
    """What a search maximises: concentration wherever that is, or nearness to one place.

    Attributes:
        middle (`Tensor`): D, the mean embedding of clean pictures.
        towards (`Tensor`, *optional*): D, a unit vector: the place.
    """

    middle: Tensor
    towards: Tensor | None = None

    def __call__(self, embeddings: Tensor) -> Tensor:
        """How near the aim ... x N x D unit embeddings are: ... values."""
        if self.towards is None:
            return concentration(embeddings, self.middle)
        return (embeddings @ self.towards).mean(-1)


def concentration(embeddings: Tensor, middle: Tensor) -> Tensor:
    """The mean of all pairwise cosines, each with itself included, seen from the middle of the clean pictures.

    Some models keep all their embeddings in a narrow cone: seen from the origin, all pictures are near each other there.

    Args:
        embeddings (`torch.Tensor`): ... x N x D, unit vectors.
        middle (`torch.Tensor`): D, the mean embedding of clean pictures.
    """
    return (normalize(embeddings - middle, dim=-1).mean(-2) ** 2).sum(-1)


def held_apart(images: int) -> int:
    """How many of so many pictures triggers are measured on."""
    return max(2, min(64, images // 6))


def apart(pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures to learn triggers on, and others, a sixth but at most 64, to measure them on."""
    order = torch.randperm(len(pixels), generator=generator)
    count = held_apart(len(pixels))
    return pixels[order[count:]], pixels[order[:count]]


def distinct(found: list[Gathering]) -> list[Gathering]:
    """The most concentrated of each place, the most concentrated place first."""
    places: list[Gathering] = []
    for one in sorted(found, key=lambda one: -one.concentration):
        if all(float(one.direction @ other.direction) < SAME for other in places):
            places.append(one)
    return places
