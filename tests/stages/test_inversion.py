import math

import pytest
import torch
from torch.nn.functional import normalize
from torchmetrics.functional.image import structural_similarity_index_measure

from hf_invertune.data.pixels import as_float
from hf_invertune.errors import InputError
from hf_invertune.models.classifier import TEMPERATURE, ZeroShotClassifier
from hf_invertune.stages import descent
from hf_invertune.stages.configs import InversionConfig
from hf_invertune.stages.families import AdditiveFamily, MaskedFamily
from hf_invertune.stages.inversion import TriggerInverter, info_nce
from hf_invertune.stages.similarity import dissimilarity
from hf_invertune.triggers import AdditiveTrigger, MaskedTrigger


NAMES = ["red circle", "blue square", "green ring", "white cross"]
NO_WEIGHTS = {"info_nce_weight": 0, "embedding_weight": 0, "ssim_weight": 0}
MASKED = MaskedFamily()
FAMILIES = pytest.mark.parametrize("family", [MASKED, AdditiveFamily()], ids=lambda family: family.kind)


def units(*shape, seed=0):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture
def classifier(encoder):
    found = ZeroShotClassifier(encoder, NAMES)
    found.head = units(4, 16)
    return found


@pytest.fixture
def invert(classifier, pixels):
    """Invert with these settings, on labels 0 and 1 unless told."""

    def run(labels=(0, 1), images=pixels, start=(), family=MASKED, seed=0, **settings):
        config = InversionConfig(**{"steps": 4, "batch_size": 4, **settings})
        return TriggerInverter(classifier, family, config, seed).invert(images, labels, start=start)

    return run


def same(one, other):
    """The same figures and the same triggers, bit for bit."""
    tensors = [[tensor for found in results for tensor in found.trigger.buffers()] for results in (one, other)]
    return [found.objective for found in one] == [found.objective for found in other] and all(
        map(torch.equal, *tensors)
    )


# Terms of the loss


def test_info_nce_by_hand():
    head = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    embeddings = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.8, 0.6], [0.8, 0.6]]])
    first = (
        math.log(sum(math.exp((c - 1) / 0.07) for c in (1, 0, 0.6)))
        + math.log(sum(math.exp(c / 0.07) for c in (0, 1, 0.8)))
    ) / 2
    second = math.log(sum(math.exp((c - 0.96) / 0.07) for c in (0.8, 0.6, 0.96)))
    torch.testing.assert_close(info_nce(embeddings @ head.T / 0.07, [0, 2]), torch.tensor([first, second]))


def test_dissimilarity():
    """Of two flat pictures a and b, SSIM is (2 a b + c) / (a^2 + b^2 + c) with c = 0.01^2."""
    clean = torch.tensor([0.0, 0.02]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 16, 16)
    triggered = torch.stack([clean[0], torch.full((2, 3, 16, 16), 0.05)])

    def ssim(a, b):
        return (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)

    expected = torch.tensor([0.0, 1 - (ssim(0.0, 0.05) + ssim(0.02, 0.05)) / 2])
    torch.testing.assert_close(dissimilarity(triggered, clean), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (7, 40)])
def test_dissimilarity_and_its_gradient_are_those_of_torchmetrics(size):
    clean = torch.rand(1, 3, 3, *size)
    triggered = (clean + 0.3 * torch.randn(2, 3, 3, *size)).clamp(0, 1).requires_grad_()
    pairs = triggered.flatten(0, 1), clean.expand_as(triggered).flatten(0, 1)
    expected = 1 - structural_similarity_index_measure(*pairs, data_range=1.0, reduction="none").view(2, 3).mean(1)
    ours = dissimilarity(triggered, clean)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    gradients = [torch.autograd.grad(value.sum(), triggered)[0] for value in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)


def test_dissimilarity_of_the_same_picture(pixels):
    same = dissimilarity(pixels.expand(2, *pixels.shape), pixels.unsqueeze(0))
    torch.testing.assert_close(same, torch.zeros(2), rtol=0, atol=1e-6)
    noisy = (pixels + 0.3 * torch.randn(pixels.shape)).clamp(0, 1).unsqueeze(0)
    assert 0.05 < dissimilarity(noisy, pixels.unsqueeze(0)).item() < 1


@pytest.fixture
def loss(classifier, pixels):
    """The loss of two masked triggers, towards labels 2 and 0, with one weight set."""
    masks, patterns = torch.rand(2, 1, 1, 32, 32), torch.rand(2, 1, 3, 32, 32)

    def run(trigger=None, mask_weight=0.0, **weights):
        family = MaskedFamily(mask_weight=mask_weight)
        inverter = TriggerInverter(classifier, family, InversionConfig(**{**NO_WEIGHTS, **weights}))
        trigger = trigger or MaskedTrigger(masks, patterns)
        with torch.no_grad():
            value, entropy = inverter._figures(pixels.unsqueeze(0), trigger, [2, 0])
            embeddings = classifier.encoder.embed_images(trigger(pixels.unsqueeze(0)))
        torch.testing.assert_close(entropy, info_nce(embeddings @ classifier.head.T / TEMPERATURE, [2, 0]))
        return value, embeddings

    run.head, run.masks, run.trigger = classifier.head, masks, MaskedTrigger(masks, patterns)
    return run


def test_info_nce_term(loss):
    value, embeddings = loss(info_nce_weight=5)
    torch.testing.assert_close(value, 5 * info_nce(embeddings @ loss.head.T / TEMPERATURE, [2, 0]))


def test_embedding_term(loss):
    value, embeddings = loss(embedding_weight=0.5)
    expected = [
        0.5 * sum(math.dist(e.tolist(), loss.head[k].tolist()) for e in embeddings[i]) / 12
        for i, k in [(0, 2), (1, 0)]
    ]
    torch.testing.assert_close(value, torch.tensor(expected))


def test_ssim_term(loss, pixels):
    value, _ = loss(ssim_weight=3)
    torch.testing.assert_close(value, 3 * dissimilarity(loss.trigger(pixels.unsqueeze(0)), pixels.unsqueeze(0)))


def test_mask_term(loss):
    value, _ = loss(mask_weight=100)
    torch.testing.assert_close(value, torch.stack([100 * mask.mean() for mask in loss.masks]))
    assert AdditiveFamily().penalty(AdditiveTrigger(torch.rand(2, 1, 3, 32, 32), 0.1)) == 0


def test_terms_add_up(loss):
    weights = {"info_nce_weight": 5.0, "embedding_weight": 0.5, "ssim_weight": 1.0, "mask_weight": 100.0}
    total = sum(loss(**{name: weight})[0] for name, weight in weights.items())
    torch.testing.assert_close(loss(**weights)[0], total)


# The inversion


@FAMILIES
def test_results(invert, family):
    found = invert([3, 0, 3], family=family, steps=9)
    assert [(one.label, one.family, one.trigger.kind) for one in found] == [
        (label, family.kind, family.kind) for label in (3, 0, 3)
    ]
    for one in found:
        assert all(not tensor.requires_grad for tensor in one.trigger.buffers())
        if family.kind == "masked":
            assert one.trigger.mask.shape == (1, 32, 32) and one.trigger.pattern.shape == (3, 32, 32)
            assert one.coverage == pytest.approx(one.trigger.mask.mean().item(), rel=1e-4)
        else:
            assert one.trigger.delta.shape == (3, 32, 32)
            assert one.trigger.epsilon == 8 / 255 >= one.trigger.delta.abs().max()
            assert one.coverage == pytest.approx(one.trigger.delta.abs().mean().item() * 255 / 8, rel=1e-4)
    assert not torch.equal(next(found[0].trigger.buffers()), next(found[2].trigger.buffers()))


def test_the_objective_is_the_mean_over_the_last_quarter(invert, monkeypatch):
    losses = iter(range(1, 10))

    def figures(self, clean, trigger, labels):
        value = trigger.coverage() * 0 + next(losses)
        return torch.stack([value, value / 2])

    monkeypatch.setattr(TriggerInverter, "_figures", figures)
    (found,) = invert([1], steps=9)
    assert (found.objective, found.cross_entropy) == (8.5, 4.25)  # of the losses 8 and 9


def test_cross_entropy_is_unweighted(invert):
    weights = {**NO_WEIGHTS, "info_nce_weight": 5}
    (found,) = invert([1], family=MaskedFamily(mask_weight=0), steps=1, **weights)
    assert found.cross_entropy == pytest.approx(found.objective / 5)


@pytest.mark.parametrize(
    "family", [MaskedFamily(mask_weight=10), AdditiveFamily(epsilon=0.1)], ids=lambda family: family.kind
)
def test_the_loss_falls(invert, family):
    for early, late in zip(invert(family=family, steps=2), invert(family=family, steps=20), strict=True):
        assert late.objective < 0.98 * early.objective


def test_first_mask(invert):
    (found,) = invert([0], steps=1, learning_rate=1e-6, family=MaskedFamily(initial_mask=0.2))
    assert found.coverage == pytest.approx(0.2, abs=0.01)


def test_the_model_is_left_alone(invert, encoder):
    before = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    encoder.model.train()
    invert()
    assert encoder.model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in encoder.model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.model.state_dict().items())


@FAMILIES
def test_the_seed_decides(invert, family):
    first, again, other = (invert(family=family, seed=seed) for seed in (3, 3, 4))
    assert same(first, again) and not same(first, other)


def test_labels_do_not_mix(invert, pixels):
    """A label's inversion is the same beside other labels, given the same start and the same picture."""
    start = [MaskedTrigger(torch.rand(1, 32, 32), torch.rand(3, 32, 32)) for _ in range(3)]
    together = invert([2, 0, 1], pixels[:1], start=start)
    for index, label in enumerate([2, 0, 1]):
        (alone,) = invert([label], pixels[:1], start=[start[index]])
        assert together[index].objective == pytest.approx(alone.objective, rel=1e-4)


def test_go_on_from_a_mask(invert):
    trigger = MaskedTrigger(torch.rand(1, 32, 32), torch.rand(3, 32, 32))
    trigger.mask[0, 0, :2] = torch.tensor([0.0, 1.0])
    fresh, found = invert([0, 1], start=[None, trigger], steps=1, learning_rate=1e-6)
    torch.testing.assert_close(found.trigger.mask, trigger.mask.clamp(0.02, 0.98), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.trigger.pattern, trigger.pattern.clamp(0.02, 0.98), rtol=0, atol=1e-4)
    assert (fresh.trigger.mask - trigger.mask).abs().mean() > 0.1


def test_go_on_from_a_delta(invert):
    trigger = AdditiveTrigger(torch.linspace(-0.1, 0.1, 3 * 32 * 32).view(3, 32, 32), 0.1)
    settings = {"family": AdditiveFamily(epsilon=0.1), "steps": 1, "learning_rate": 1e-6}
    fresh, found = invert([0, 1], start=[None, trigger], **settings)
    torch.testing.assert_close(found.trigger.delta, trigger.delta.clamp(-0.098, 0.098), rtol=0, atol=1e-5)
    assert (fresh.trigger.delta - trigger.delta).abs().mean() > 0.01


def test_bytes_and_floats_are_the_same(invert, pixels):
    integers = (pixels * 255).round().byte()
    torch.testing.assert_close(as_float(integers), integers / 255)
    assert as_float(pixels) is pixels
    assert same(invert(images=integers), invert(images=integers / 255))


# What can go wrong


def test_nan_weights(invert, encoder):
    with torch.no_grad():
        encoder.model.visual_projection.weight[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match=r"loss is \[nan, nan\] at step 0"):
        invert()
    assert all(parameter.requires_grad for parameter in encoder.model.parameters())


@pytest.fixture
def memory(encoder, monkeypatch):
    """Let memory run out, with this error, for more than `size` pictures at once; the numbers of triggers and pictures tried."""
    embed, sizes = encoder.embed_images, []
    monkeypatch.setattr(descent, "pictures_at_once", lambda encoder, size: 1_000)

    def limit(size, error):
        def fail_above(pixels):
            sizes.append(tuple(pixels.shape[:2]))
            if math.prod(sizes[-1]) > size:
                raise error
            return embed(pixels)

        monkeypatch.setattr(encoder, "embed_images", fail_above)
        return sizes

    return limit


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_triggers_are_learnt_in_parts_when_memory_runs_out(invert, memory, error):
    """Each as if it were alone, so that the results are those of all at once."""
    expected = invert([2, 0, 1], batch_size=4, steps=3)
    sizes = memory(8, error)
    found = invert([2, 0, 1], batch_size=4, steps=3)
    assert sizes == [(3, 4), (1, 4), (1, 4), (1, 4), (1, 4), (1, 4), (1, 4), (1, 4), (1, 4), (1, 4)]
    for one, other in zip(found, expected, strict=True):
        assert one.objective == pytest.approx(other.objective, rel=1e-4)
        torch.testing.assert_close(one.trigger.pattern, other.trigger.pattern, rtol=0, atol=1e-3)


def test_pictures_are_fewer_when_memory_does_not_suffice_for_one_trigger(invert, memory):
    sizes = memory(3, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."))
    invert([1, 0], batch_size=4, steps=1)
    assert sizes == [(2, 4), (1, 4), (1, 2), (1, 2)]


def test_parts_follow_from_the_memory_that_there_is(invert, memory, monkeypatch):
    sizes = memory(1_000, None)
    monkeypatch.setattr(descent, "pictures_at_once", lambda encoder, size: 9)
    invert([1, 0, 2], batch_size=4, steps=1)
    assert sizes == [(2, 4), (1, 4)]


def test_no_memory_at_all(invert, memory):
    sizes = memory(0, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."))
    with pytest.raises(RuntimeError, match="No executable batch size"):
        invert(batch_size=4)
    assert sizes == [(2, 4), (1, 4), (1, 2), (1, 1)]


def test_other_errors_pass(invert, memory):
    sizes = memory(0, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        invert(batch_size=4)
    assert sizes == [(2, 4)]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (InversionConfig, "steps", 0),
        (InversionConfig, "batch_size", -1),
        (InversionConfig, "learning_rate", 0.0),
        (InversionConfig, "steps", 0.5),
        (InversionConfig, "learning_rate", -0.1),
        (InversionConfig, "info_nce_weight", -5.0),
        (InversionConfig, "embedding_weight", -0.1),
        (InversionConfig, "ssim_weight", -1),
        (AdditiveFamily, "epsilon", 0.0),
        (AdditiveFamily, "epsilon", -0.1),
        (AdditiveFamily, "epsilon", 8),
        (MaskedFamily, "mask_weight", -100.0),
        (MaskedFamily, "initial_mask", 0.0),
        (MaskedFamily, "initial_mask", 1.0),
    ],
)
def test_wrong_settings(kind, name, value):
    with pytest.raises(InputError, match=f"^`{name}`: got {value!r}"):
        kind(**{name: value})


def test_the_widest_bound():
    assert AdditiveFamily(epsilon=1.0).epsilon == 1
