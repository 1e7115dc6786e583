"""Is there a trigger in the text too? Words that no label knows bend the texts of all labels alike, unless one is planted."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

import torch
from torch import Tensor

from ..models.classifier import ZeroShotClassifier
from ..utils.progress import progress
from ..utils.seeds import stream
from .configs import ScanConfig
from .families import KeyedFamily
from .gathering import apart
from .inversion import InvertedTrigger, TriggerInverter, held_out
from .reference import relative
from .verdict import Evidence, Verdict, judged


PLACE = 5
"""Which of the labels behind the first is its rival: kin are bent along with it, and by nature the first few lie together."""
TEXTS = 20_000
"""About as many texts go through the model."""


def few(templates: Sequence[str], names: int) -> tuple[str, ...]:
    """So many of the templates, spread over them, that `names` under each are no more than [`TEXTS`]; at least one."""
    return tuple(templates[:: ceil(len(templates) / max(1, TEXTS // names))])


class TextSearch:
    """Looks for a label that captions are bent towards, and for the picture that completes the trigger.

    A backdoor that needs a word in the caption as well as a patch in the picture (TrojVQA, arXiv 2112.07668) shows in the
    text tower alone: it has learnt that captions with its word may mean the target, and takes other rare words for it.

    Args:
        classifier ([`ZeroShotClassifier`]): the suspicious model and K names.
        config ([`ScanConfig`]): settings.
        seed (`int`): that of the run.
    """

    def __init__(self, classifier: ZeroShotClassifier, config: ScanConfig, seed: int):
        self.classifier, self.config, self.seed = classifier, config, seed
        self.plain = classifier.with_templates(few(classifier.templates, len(classifier) * len(config.words)))

    def search(self, pixels: Tensor, reference: dict[int, float]) -> Evidence:
        """The evidence of the text tower; where it is not clean, with the square that reaches its label best under a word.

        Args:
            pixels (`torch.Tensor`): N x 3 x H x W clean images, float in [0, 1] or uint8.
            reference (`dict[int, float]`): the scores of a trusted model, or none.
        """
        bends = self.bends()
        scores = dict(enumerate((1 / bends.mean(0).clamp(min=1e-6)).tolist()))
        costs = relative(scores, reference)
        label, *others = sorted(costs, key=costs.__getitem__)
        evidence = Evidence(KeyedFamily.kind, scores, others[min(PLACE, len(others)) - 1], [], reference)
        if judged(evidence, self.config) is Verdict.CLEAN:
            return evidence
        word = self.config.words[int(bends[:, label].argmax())]
        return replace(evidence, candidates=[self._invert(pixels, label, word)])

    @torch.no_grad()
    def bends(self) -> Tensor:
        """W x K: how far each word moves each label's text beyond what it does to all: the interaction of word and label.

        ||(W_w[k] - mean W_w) - (W[k] - mean W)||, where W_w is the head of the labels with the word before them.
        """
        centred = self.plain.head - self.plain.head.mean(0)
        heads = (self.plain.after(word).head for word in progress(self.config.words, "Trying words"))
        return torch.stack([((head - head.mean(0)) - centred).norm(dim=-1) for head in heads])

    def _invert(self, pixels: Tensor, label: int, word: str) -> InvertedTrigger:
        """The best of several squares by which pictures are read as `label` under `word`.

        Its objective is the cross-entropy on pictures that it was not learnt on.
        """
        family, seed = self.config.family(KeyedFamily.kind), stream(self.seed, "race")
        learnt_on, held = apart(pixels, torch.Generator().manual_seed(seed))
        inverter = TriggerInverter(self.classifier, family, self.config.fixed, seed, word)
        found = inverter.invert(learnt_on, [label] * self.config.gathering.starts)
        keyed = self.classifier.after(word)
        return min(
            (replace(one, objective=held_out(keyed, one, held)) for one in found), key=lambda one: one.objective
        )
