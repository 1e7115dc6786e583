from math import exp, log, sqrt
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny import CLASS_NAMES
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import TrainerCallback

from hf_invertune.errors import InputError
from hf_invertune.lab.baselines import (
    BASELINES,
    PAR,
    CleanCLIP,
    FineTuning,
    augmentations,
    cleanclip,
    fine_tuning,
    invertune_published,
    par,
    unlearning,
)
from hf_invertune.lab.baselines.augmentations import (
    IMAGENET_POLICY,
    AutoAugment,
    apply_operation,
    brighten_with_noise,
    erase_squares,
    swap_or_delete_words,
)
from hf_invertune.lab.baselines.cleanclip import CleanCLIPTrainer, TwoViewsCollator, cleanclip_loss
from hf_invertune.lab.baselines.fine_tuning import FineTuningTrainer, tune_on_captions
from hf_invertune.lab.baselines.invertune_published import (
    ActivationTuner,
    images_of_target,
    inversion_loss,
    patch_place,
    published_alignment,
)
from hf_invertune.lab.baselines.par import NoisyCollator, PARTrainer, par_loss, perturbation, rate_factor
from hf_invertune.lab.baselines.unlearning import anomaly_indices, invert_masks, stamp_some
from hf_invertune.lab.contrastive import CaptionedPixels, contrastive_loss
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.loading import load_model, state_digest
from hf_invertune.stages.localization import CriticalNeurons
from hf_invertune.stages.verdict import Verdict
from hf_invertune.triggers import MaskedTrigger


EYE = torch.eye(2)
SCALE = torch.tensor(log(3))  # a similarity of 1 against one of 0 has the odds 3 : 1
APART, TOGETHER = torch.tensor([0, 1]), torch.tensor([7, 7])
RIGHT, WRONG, EITHER = log(4 / 3), log(4), (log(4 / 3) + log(4)) / 2


@pytest.fixture
def data():
    """Sixteen captioned pictures of noise."""
    pixels = torch.randint(256, (16, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    captions = [f"a {'photo' if i < 8 else 'good picture'} of a {CLASS_NAMES[i % 4]}" for i in range(16)]
    return CaptionedPixels(pixels, captions, labels=torch.arange(16) % 4)


def test_the_clip_loss_by_hand():
    assert float(contrastive_loss(SCALE * EYE, APART)) == pytest.approx(RIGHT)
    assert float(contrastive_loss(SCALE * EYE, TOGETHER)) == pytest.approx(EITHER)


def test_the_loss_of_cleanclip_by_hand():
    """The augmented pictures are exchanged, the augmented captions are not."""
    apart = cleanclip_loss(EYE, EYE.flip(0), EYE, EYE, SCALE, APART)
    assert float(apart) == pytest.approx(RIGHT + (WRONG + RIGHT) / 2)
    together = cleanclip_loss(EYE, EYE.flip(0), EYE, EYE, SCALE, TOGETHER)
    assert float(together) == pytest.approx(EITHER + (WRONG + EITHER) / 2)


def test_the_loss_of_par_by_hand():
    """One of two pictures moved by a right angle, S = 1; both captions are reversed, S = 4, beyond the threshold."""
    loss = par_loss(EYE, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), EYE, -EYE, SCALE, APART)
    assert float(loss) == pytest.approx(RIGHT - 0.5)
    assert perturbation(EYE, -EYE) == 0
    assert perturbation(EYE, -EYE, threshold=4.0) == 4


def model_of(images, texts):
    """What stands in for a CLIP whose embeddings are these."""

    def model(**inputs):
        assert set(inputs) == {"pixel_values"}
        return SimpleNamespace(image_embeds=images, text_embeds=texts)

    model.logit_scale = SCALE.log()
    return model


def test_the_trainer_of_cleanclip_pairs_the_views():
    """The first half of a batch is as it is, the second half augmented, of pictures as of captions."""
    model = model_of(torch.cat([EYE, EYE.flip(0)]), torch.cat([EYE, EYE]))
    accelerator = SimpleNamespace(unwrap_model=lambda model: model)
    trainer = SimpleNamespace(accelerator=accelerator, outputs=lambda model, inputs: model(**inputs))
    loss = CleanCLIPTrainer.compute_loss(trainer, model, {"groups": APART, "pixel_values": None})
    assert float(loss) == pytest.approx(RIGHT + (WRONG + RIGHT) / 2)


def test_the_trainer_of_par_holds_the_model_against_its_copy():
    """As above, one of two pictures has moved by a right angle, and the captions are reversed."""
    original = model_of(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), -EYE)
    trainer = SimpleNamespace(original=original, outputs=lambda model, inputs: model(**inputs))
    loss = PARTrainer.compute_loss(trainer, model_of(EYE, EYE), {"groups": APART, "pixel_values": None})
    assert float(loss) == pytest.approx(RIGHT - 0.5)


def test_the_rate_of_par():
    factors = [rate_factor(progress) for progress in (0, 0.25, 0.5, 0.75, 1)]
    assert factors == pytest.approx([1, 0.55, 0.1, 0.05, 0])


def test_the_published_inversion_loss_by_hand():
    """Of two pictures one is read as the target; nothing is stamped yet, through a mask of a quarter."""
    clean = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    anchors = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = inversion_loss(EYE, EYE / 0.07, 0, anchors, clean, clean, torch.full((1, 12, 12), 0.25))
    entropy = log(1 + exp(-1 / 0.07)) + 1 / 0.07 / 2
    assert float(loss) == pytest.approx(5 * entropy + 0.5 * sqrt(2) + 0.01 * 3 * 12 * 12 * 0.25)
    noise = inversion_loss(EYE, EYE / 0.07, 0, anchors, clean.flip(0), clean, torch.zeros(1, 12, 12))
    assert float(noise) > 5 * entropy + 0.5 * sqrt(2) + 0.5  # dissimilar pictures cost up to 1 more


def test_the_published_tuning_loss_by_hand():
    """Hidden unit 1 changes from the mean 4 to the mean 5; two embeddings turn by a right angle."""
    triggered = torch.tensor([[[9.0, 4.0]], [[9.0, 6.0]]])
    clean = torch.tensor([[[0.0, 3.0]], [[0.0, 5.0]]])
    assert float(published_alignment(triggered, clean, [1])) == pytest.approx(1 / 4)
    embeddings, hidden = torch.cat([torch.full((2, 2), 9.0), EYE]), torch.cat([triggered, clean])
    inputs = {"triggered": torch.zeros(2, 1), "clean": torch.zeros(2, 1), "original": EYE.flip(0)}
    tuner = SimpleNamespace(critical=CriticalNeurons([1.0], {0: [1]}, [2]))
    assert float(ActivationTuner.compute_loss(tuner, lambda pixels: (embeddings, [hidden]), inputs)) == pytest.approx(
        1 / 4 + 0.5 * 2
    )


def test_the_published_patch():
    rows = patch_place(224)[0, 0, 0, :, 200].nonzero().flatten()
    assert (rows[0], rows[-1]) == (172, 209)
    assert patch_place(32).sum() == 25
    assert patch_place(32)[..., 25:30, 25:30].all()


def test_images_of_the_target(encoder, pixels):
    classifier = ZeroShotClassifier(encoder, CLASS_NAMES)
    similarity = encoder.embed_images(pixels).detach() @ classifier.head.T
    read = similarity.argmax(-1)
    often, never = int(read.mode().values), [label for label in range(4) if label not in read]
    assert torch.equal(images_of_target(classifier, pixels, often), read == often)
    for label in never:
        assert images_of_target(classifier, pixels, label).nonzero().item() == similarity[:, label].argmax()


class Plain(ZeroShotClassifier):
    """Classes that are the axes of an encoder's space."""

    def __init__(self, encoder, count):
        self.encoder, self.head, self.class_names = encoder, torch.eye(count), tuple("abcdefgh"[:count])


class Quarter(nn.Module):
    """An encoder that sees red in the upper left quarter, green and blue everywhere, and a constant."""

    device = torch.device("cpu")

    def frozen(self):
        return torch.enable_grad()

    def embed_images(self, pixels):
        red = 4 * pixels[..., 0, :2, :2].mean((-2, -1))
        green, blue = (pixels[..., channel, :, :].mean((-2, -1)) for channel in (1, 2))
        return normalize(torch.stack([red, green, blue, 0 * red + 0.5, green - 1], -1), dim=-1)


def test_masks_are_inverted_for_all_labels():
    """Label 0 needs an eighth of four pixels, labels 1 and 2 need two sevenths of all; 3 needs nothing, 4 is out of reach."""
    pixels = torch.full((8, 3, 8, 8), 0.3)
    pixels[:, 0] = 0.0
    inversion = invert_masks(Plain(Quarter(), 5), pixels, seed=0)
    for label, trigger in enumerate(inversion.triggers):
        assert float(trigger.mask.mean()) == pytest.approx(inversion.sizes[label])
        assert bool((Quarter().embed_images(trigger(pixels)).argmax(-1) == label).all()) == (label < 4)
    assert inversion.sizes[4] == 1
    assert inversion.sizes[3] < 0.01
    assert 0.125 * 4 / 64 < inversion.sizes[0] < 0.05
    assert all(2 / 7 < size < 0.5 for size in inversion.sizes[1:3])


class Blank(nn.Module):
    """An encoder to which every picture is the first label."""

    device = torch.device("cpu")
    frozen = staticmethod(torch.enable_grad)

    def embed_images(self, pixels):
        return torch.tensor([1.0, 0.0]) + 0 * pixels.mean((-3, -2, -1))[..., None]


def test_the_cost_of_a_mask_by_hand(monkeypatch):
    """It rises by its factor where all pictures are read as the label, falls by the factor's power 3/2 where none is."""
    monkeypatch.setattr(unlearning, "UPDATES", 2 * unlearning.PATIENCE)
    monkeypatch.setattr(unlearning, "LOOK", 1)
    losses, entropy = [], unlearning.info_nce
    backward = Tensor.backward
    monkeypatch.setattr(unlearning, "info_nce", lambda *arguments: 0 * entropy(*arguments))  # the cost alone is left
    monkeypatch.setattr(Tensor, "backward", lambda loss: (losses.append(loss.item()), backward(loss)))
    monkeypatch.setattr(torch.optim.Adam, "step", lambda optimizer: None)  # and the masks stay as they are
    invert_masks(Plain(Blank(), 2), torch.zeros(4, 3, 8, 8, dtype=torch.uint8), seed=0)
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randn(2, 1, 1, 8, 8, generator=generator).sigmoid().flatten(1).mean(1)
    patience, factor = unlearning.PATIENCE, unlearning.COST_MULTIPLIER
    assert losses[:patience] == pytest.approx([float(sizes.sum())] * patience)
    changed = sizes[0] * factor + sizes[1] / factor**1.5
    assert losses[patience:] == pytest.approx([float(changed)] * patience)


def test_the_loss_of_neural_cleanse_by_hand(monkeypatch):
    """Cross-entropy towards the label at a temperature of 0.07, and the mean of the mask, whose first cost is 1."""
    monkeypatch.setattr(unlearning, "UPDATES", 1)
    losses, backward = [], Tensor.backward
    monkeypatch.setattr(Tensor, "backward", lambda loss: (losses.append(loss.item()), backward(loss)))
    invert_masks(Plain(Blank(), 2), torch.zeros(4, 3, 8, 8, dtype=torch.uint8), seed=0)
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randn(2, 1, 1, 8, 8, generator=generator).sigmoid().flatten(1).mean(1)
    reached, other = log(1 + exp(-1 / 0.07)), 1 / 0.07 + log(1 + exp(-1 / 0.07))
    assert losses == pytest.approx([reached + other + float(sizes.sum())])


def test_neural_cleanse_unlearns_the_smallest_mask(monkeypatch, data):
    """It tunes on pictures of which a fifth carries the trigger of the label that was reached most easily."""
    patches = [MaskedTrigger(torch.ones(1, 32, 32), torch.full((3, 32, 32), shade)) for shade in (0.0, 1.0, 0.0, 0.0)]
    found, seen = unlearning.MaskInversion(patches, [0.4, 0.1, 0.5, 0.4]), []
    monkeypatch.setattr(unlearning, "tune_on_captions", lambda clip, data, rate, seed: seen.append((data, rate, seed)))
    defended = unlearning.NeuralCleanseUnlearning(0.5, 3).treat(None, data, CLASS_NAMES, found)
    ((tuned, rate, seed),) = seen
    changed = (tuned.pixels != data.pixels).flatten(1).any(1)
    assert changed.sum() == 3 and (tuned.pixels[changed] == 255).all() and (rate, seed) == (0.5, 3)
    assert (defended.target, defended.verdict) == (
        CLASS_NAMES[1],
        Verdict.BACKDOORED,
    )  # 0.3 / (1.4826 * 0.05) MAD below
    found.sizes[:] = [0.4, 0.3, 0.5, 0.4]
    assert unlearning.NeuralCleanseUnlearning(0.5, 3).treat(None, data, CLASS_NAMES, found).verdict == Verdict.CLEAN


def test_the_anomaly_index_by_hand():
    indices = anomaly_indices([0.01, 0.04, 0.05, 0.06, 0.05])
    assert indices == pytest.approx([4 / 1.4826, 1 / 1.4826, 0, -1 / 1.4826, 0])
    assert anomaly_indices([0.1, 0.1]) == [0, 0]


def test_a_fifth_of_the_pictures_is_stamped(data):
    trigger = MaskedTrigger(torch.ones(1, 32, 32), torch.ones(3, 32, 32))
    stamped = stamp_some(data, trigger, seed=3)
    changed = (stamped.pixels != data.pixels).flatten(1).any(1)
    assert changed.sum() == 3
    assert (stamped.pixels[changed] == 255).all()
    assert stamped.captions == data.captions and torch.equal(stamped.groups, data.groups)
    assert torch.equal(stamp_some(data, trigger, seed=3).pixels, stamped.pixels)


@pytest.fixture
def brief(monkeypatch):
    """Every defence takes a few updates."""
    monkeypatch.setattr(fine_tuning, "MINIMAL_STEPS", 2)
    monkeypatch.setattr(fine_tuning, "EPOCHS", 0)
    for module, values in ((invertune_published, (2, 6)), (unlearning, (5, 2))):
        monkeypatch.setattr(module, "UPDATES", values[0])
        monkeypatch.setattr(module, "BATCH_SIZE", values[1])


@pytest.mark.parametrize("name", BASELINES)
def test_each_defence_runs_and_repeats_itself(name, tiny_folder, data, brief):
    digests, before = [], data.digest()
    for seed in (0, 0, 1):
        clip = load_model(tiny_folder, device="cpu")
        original = {key: (value.shape, value.dtype) for key, value in clip.model.state_dict().items()}
        digests.append(state_digest(clip.model, torch.float32))
        defended = BASELINES[name](1e-3, seed).defend(clip, data, CLASS_NAMES)
        state = defended.model.state_dict()
        assert {key: (value.shape, value.dtype) for key, value in state.items()} == original
        assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
        assert not defended.model.training
        assert defended.target is None or defended.target in CLASS_NAMES
        assert (defended.target is None) == (defended.trigger is None)
        digests.append(state_digest(defended.model, torch.float32))
    start, first, _, again, _, other = digests
    assert len({start, first, other}) == 3
    assert first == again
    assert data.digest() == before


def test_the_grid_gives_the_learning_rate():
    assert FineTuning().learning_rate == FineTuning.grid[0]
    assert FineTuning(0.5).learning_rate == 0.5


def test_the_updates_are_ten_epochs_but_not_too_few(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(fine_tuning, "train_contrastive", lambda *args, **settings: seen.append(settings))
    for count in (2, 500, 6400):
        pairs = CaptionedPixels(torch.zeros(count, 3, 1, 1, dtype=torch.uint8), ["a"] * count)
        tune_on_captions(tiny, pairs, 1e-3, 0)
    steps = [(settings["max_steps"], settings["per_device_train_batch_size"]) for settings in seen]
    assert steps == [(200, 2), (200, 64), (1000, 64)]
    with pytest.raises(InputError, match="`data`: got 1"):
        tune_on_captions(tiny, data_of_one(), 1e-3, 0)


def data_of_one():
    return CaptionedPixels(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), ["a red circle"])


def test_the_logit_scale_is_clamped(tiny, data, brief):
    tiny.model.logit_scale.data.fill_(6.0)
    model = FineTuning(1e-5).defend(tiny, data, CLASS_NAMES).model
    assert model.logit_scale.item() == pytest.approx(4.6052, abs=1e-3)


def test_par_leaves_the_logit_scale_alone(tiny, data, brief):
    before = tiny.model.logit_scale.item()
    assert BASELINES["par"](1e-3).defend(tiny, data, CLASS_NAMES).model.logit_scale.item() == before


CLEANCLIP = {"trainer": CleanCLIPTrainer, "collator": TwoViewsCollator}
PAR_SETTINGS = {"trainer": PARTrainer, "collator": NoisyCollator, "adam_beta2": 0.98, "weight_decay": 1e-4}
TUNED = [(FineTuning, fine_tuning, {}), (CleanCLIP, cleanclip, CLEANCLIP), (PAR, par, PAR_SETTINGS)]


@pytest.mark.parametrize(("defence", "module", "expected"), TUNED)
def test_what_a_defence_asks_of_the_tuning(defence, module, expected, monkeypatch):
    asked = []

    def tune(*arguments, **settings):
        asked.append((arguments, settings))
        return "tuned"

    monkeypatch.setattr(module, "tune_on_captions", tune)
    assert defence(0.5, 7).defend("clip", "data", CLASS_NAMES).model == "tuned"
    assert asked == [(("clip", "data", 0.5, 7), expected)]


class OptimizerLog(TrainerCallback):
    """The betas, the decay of each weight, and the learning rate of every update."""

    def __init__(self):
        self.betas, self.decays, self.rates = set(), {}, []

    def on_step_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        names = {parameter: name for name, parameter in model.named_parameters()}
        for group in optimizer.param_groups:
            self.betas.add(group["betas"])
            self.decays |= {names[parameter]: group["weight_decay"] for parameter in group["params"]}
        self.rates.append({group["lr"] for group in optimizer.param_groups})


def is_small(name, parameter):
    """Norms, biases and the logit scale."""
    return name.endswith(("bias", "logit_scale")) or "norm" in name


def is_small_or_flat(name, parameter):
    return is_small(name, parameter) or parameter.ndim < 2


@pytest.mark.parametrize(
    ("defence", "module", "betas", "decay", "spared", "factors"),
    [
        (CleanCLIP, cleanclip, (0.9, 0.999), 0.1, is_small, (0, 1, 0.75, 0.25)),  # one step of warm-up, then a cosine
        (PAR, par, (0.9, 0.98), 1e-4, is_small_or_flat, (1, 0.55, 0.1, 0.05)),
    ],
)
def test_the_optimiser_in_use(defence, module, betas, decay, spared, factors, tiny, data, brief, monkeypatch):
    monkeypatch.setattr(fine_tuning, "MINIMAL_STEPS", len(factors))
    log, tune = OptimizerLog(), module.tune_on_captions
    monkeypatch.setattr(module, "tune_on_captions", lambda *args, **kwargs: tune(*args, callbacks=[log], **kwargs))
    defence(1e-3).defend(tiny, data, CLASS_NAMES)
    assert log.betas == {betas}
    weights = dict(tiny.model.named_parameters())
    assert log.decays == {name: 0.0 if spared(name, weight) else decay for name, weight in weights.items()}
    assert [rate for rates in log.rates for rate in rates] == pytest.approx([1e-3 * factor for factor in factors])


@pytest.mark.parametrize("trainer", [FineTuningTrainer, CleanCLIPTrainer, PARTrainer])
def test_what_decays(trainer, tiny):
    names = trainer.get_decay_parameter_names(trainer.__new__(trainer), tiny.model)
    assert "text_projection.weight" in names
    assert not any(name.endswith(("bias", "logit_scale")) or "norm" in name for name in names)


def test_two_views(tiny, data):
    torch.manual_seed(0)
    batch = TwoViewsCollator(tiny.encoder)([data[i] for i in range(4)])
    assert batch["pixel_values"].shape == (8, 3, 32, 32)
    assert batch["input_ids"].shape[0] == batch["attention_mask"].shape[0] == 8
    assert torch.equal(batch["groups"], data.groups[:4])
    first, second = batch["pixel_values"].chunk(2)
    collator = TwoViewsCollator(tiny.encoder)
    assert torch.equal(first, collator.pixel_values(data.pixels[:4].float() / 255))
    assert (first != second).flatten(1).any(1).sum() >= 3
    assert (batch["input_ids"][:4] != batch["input_ids"][4:]).any()


PICTURE = Image.frombytes("RGB", (2, 1), bytes([10, 100, 200, 255, 0, 129]))


@pytest.mark.parametrize(
    ("name", "strength", "expected"),
    [
        ("invert", 1.0, [245, 155, 55, 0, 255, 126]),
        ("solarize", 0.5, [10, 100, 55, 0, 0, 126]),  # from 128 on
        ("posterize", 1.0, [0, 96, 192, 240, 0, 128]),  # four bits
        ("posterize", 0.0, [10, 100, 200, 255, 0, 129]),
        ("rotate", 0.0, [10, 100, 200, 255, 0, 129]),
        ("shear", 0.0, [10, 100, 200, 255, 0, 129]),
        ("colour", 0.0, [10, 100, 200, 255, 0, 129]),
    ],
)
def test_operations(name, strength, expected):
    assert list(apply_operation(PICTURE, name, strength, 1).tobytes()) == expected


def test_directions():
    grey = apply_operation(PICTURE, "colour", 1.0, -1).getpixel((0, 0))
    assert max(grey) - min(grey) <= 20  # a tenth of the colour is left
    board = Image.new("RGB", (9, 9))
    board.putpixel((4, 0), (255, 255, 255))
    left, right = (apply_operation(board, "rotate", 1.0, sign) for sign in (1, -1))
    assert left.getbbox()[0] < 4 < right.getbbox()[0]
    with pytest.raises(ValueError, match="no operation 'blur'"):
        apply_operation(PICTURE, "blur", 1.0, 1)


def test_auto_augment_follows_the_seed(pixels):
    assert len(IMAGENET_POLICY) == 25
    torch.manual_seed(4)
    first = AutoAugment()(pixels)
    torch.manual_seed(4)
    assert torch.equal(AutoAugment()(pixels), first)
    assert first.shape == pixels.shape and first.min() >= 0 and first.max() <= 1
    assert not torch.equal(AutoAugment()(pixels), first)


def test_words_are_swapped_or_left_out(monkeypatch):
    torch.manual_seed(0)
    words = ["a", "large", "red", "ring"]
    kinds = set()
    for _ in range(50):
        changed = swap_or_delete_words(" ".join(words), share=0.3).split()
        assert changed and set(changed) <= set(words)
        kinds.add("swapped" if sorted(changed) == sorted(words) and changed != words else len(changed))
    assert kinds >= {"swapped", 4, 3, 2}
    assert swap_or_delete_words("ring") == "ring"
    assert {len(swap_or_delete_words("red ring", share=1.0).split()) for _ in range(20)} == {1, 2}


def test_noise_brightens_half_of_the_pictures():
    torch.manual_seed(0)
    pixels = torch.full((200, 3, 8, 8), 0.5)
    noise = brighten_with_noise(pixels) - pixels
    touched = noise.flatten(1).any(1)
    assert 80 <= touched.sum() <= 120
    assert noise.min() == 0 and noise.max() <= 0.5
    assert float(noise[touched].mean()) == pytest.approx(0.2 * 0.3989, abs=0.005)  # the mean of max(0, N(0, 0.2))


def test_squares_are_erased():
    torch.manual_seed(0)
    values = torch.ones(200, 3, 32, 32)
    erased = (erase_squares(values) == 0).all(1).flatten(1).sum(1)
    assert set(erased.tolist()) == {0, 4, 9}  # sides of 2 and 3 pixels
    assert 80 <= (erased > 0).sum() <= 120
    assert values.min() == 1
    assert augmentations.erase_squares(values, probability=1.0, value=-1.0)[:, 0].amin((1, 2)).eq(-1).all()
