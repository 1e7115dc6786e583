"""What is refused before a search: a model that does not read the pictures."""

from dataclasses import replace

import pytest
import torch

from hf_invertune.data.pixels import PixelDataset
from hf_invertune.errors import CannotJudgeError, ExitCode, InputError
from hf_invertune.models.evaluation import chance
from hf_invertune.stages.configs import ScanConfig
from hf_invertune.stages.reading import check_reading


NAMES = ("red circle", "green square", "blue ring", "white star")


class Reader:
    """Reads pictures by their first pixel."""

    class_names = NAMES

    def predict(self, pixels):
        return pixels[:, 0, 0, 0].long()


def pictures(read, labels=None):
    pixels = torch.zeros(len(read), 3, 4, 4, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.tensor(read, dtype=torch.uint8)
    return PixelDataset(pixels, None if labels is None else torch.tensor(labels), None if labels is None else NAMES)


def test_chance():
    labels = torch.arange(4).repeat(5)
    assert chance(labels, labels) < 1e-9
    # A quarter of 20 is what dealing them out would hit: P(X >= 5) = 0.5852 for X ~ B(20, 1/4).
    assert chance(labels.roll(1)[torch.randperm(20, generator=torch.Generator().manual_seed(0))], labels) > 0.01
    assert chance(torch.tensor([0, 1, 2, 3] * 4 + [1, 2, 3, 0]), labels) == pytest.approx(3.9e-7, rel=0.05)
    assert chance(torch.zeros(20, dtype=torch.int64), labels) == pytest.approx(0.5852, rel=1e-3)


def test_a_model_that_reads_at_random_cannot_be_judged():
    labels = [0, 1, 2, 3] * 8
    check_reading(Reader(), pictures(labels, labels), ScanConfig())
    guess = torch.randint(4, (32,), generator=torch.Generator().manual_seed(1)).tolist()
    with pytest.raises(
        CannotJudgeError, match=r"`model`: it cannot be judged, for it reads \d+% of the pictures right"
    ):
        check_reading(Reader(), pictures(guess, labels), ScanConfig())
    check_reading(Reader(), pictures(guess, labels), replace(ScanConfig(), max_chance=1.0))


def test_without_labels_a_model_that_reads_all_pictures_alike_cannot_be_judged():
    check_reading(Reader(), pictures([1] * 18 + [0, 2]), ScanConfig())
    with pytest.raises(CannotJudgeError, match="reads 95% of the pictures as 'green square'"):
        check_reading(Reader(), pictures([1] * 19 + [2]), ScanConfig())


def test_it_has_an_exit_code_of_its_own():
    assert issubclass(CannotJudgeError, InputError)
    codes = {
        CannotJudgeError.exit_code,
        InputError.exit_code,
        *map(ExitCode.of, ("clean", "backdoored", "inconclusive")),
    }
    assert len(codes) == 5
