import json
import math

import pytest
import torch
from safetensors.torch import save_file

from hf_invertune.errors import InputError
from hf_invertune.triggers import (
    AdditiveTrigger,
    BlendTrigger,
    MaskedTrigger,
    PatchTrigger,
    SampleSpecificTrigger,
    ScatteredPatchTrigger,
    Trigger,
    WarpTrigger,
    WaveTrigger,
    checkerboard,
)


def grey(value):
    """A 3 x 2 x 2 picture of one grey."""
    return torch.full((3, 2, 2), value)


CASES = {
    "patch": (PatchTrigger(torch.tensor([[0.9], [0.8]]).expand(3, 2, 1), 0, 1), [[0.4, 0.9], [0.4, 0.8]]),
    "blend": (BlendTrigger(torch.tensor([[0.0, 1.0], [0.4, 0.8]]).expand(3, 2, 2), 0.25), [[0.3, 0.55], [0.4, 0.5]]),
    "masked": (
        MaskedTrigger(
            torch.tensor([[[0.0, 1.0], [0.5, 0.25]]]), torch.tensor([[1.0, 0.7], [1.0, 0.0]]).expand(3, 2, 2)
        ),
        [[0.4, 0.7], [0.7, 0.3]],
    ),
    "additive": (
        AdditiveTrigger(torch.tensor([[0.05, -0.05], [0.3, -0.3]]).expand(3, 2, 2), 0.1),
        [[0.45, 0.35], [0.5, 0.3]],
    ),
    "scattered-patch": (
        ScatteredPatchTrigger(torch.tensor([[0.9], [0.8]]).expand(3, 2, 1), 2),
        [[0.4, 0.9], [0.4, 0.8]],
    ),
    "wave": (WaveTrigger(torch.tensor([0.0, 1.0, 0.0]), 0.1), [[0.5, 0.3], [0.5, 0.3]]),
    "warp": (WarpTrigger(torch.full((2, 2, 2), 0.5)), [[0.4, 0.4], [0.4, 0.4]]),
    "sample-specific": (
        SampleSpecificTrigger(
            torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]),
            torch.nn.functional.pad(torch.ones(16, 1, 1, 1), (2, 2, 2, 2, 3, 0)),  # sees the secret at its own pixel
            torch.nn.functional.pad(torch.full((3, 16, 1, 1), 1 / 16), (2, 2, 2, 2)),
            0.1,
        ),
        [[0.4761594, 0.4], [0.4, 0.4761594]],  # 0.1 tanh(1)
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_formula(kind):
    trigger, expected = CASES[kind]
    pixels = torch.stack([grey(0.4), grey(0.4)])
    torch.testing.assert_close(trigger(pixels), torch.tensor(expected).expand(2, 3, 2, 2))
    torch.testing.assert_close(pixels, torch.full((2, 3, 2, 2), 0.4), rtol=0, atol=0)


def test_every_kind_has_its_case():
    ours = {kind for kind, trigger in Trigger.kinds.items() if trigger.__module__.startswith("hf_invertune.")}
    assert ours == set(CASES)


def test_a_wave_fits_any_size():
    """u counts periods down, v across, and the phase is in radians."""
    wave = WaveTrigger(torch.tensor([2.0, -1.0, 0.5]), 0.1)
    rows, columns = torch.meshgrid(torch.arange(6) / 6, torch.arange(8) / 8, indexing="ij")
    expected = 0.5 + 0.1 * torch.cos(2 * math.pi * (2 * rows - columns) + 0.5)
    torch.testing.assert_close(wave(torch.full((3, 6, 8), 0.5)), expected.expand(3, 6, 8))
    batch = WaveTrigger(torch.stack([wave.wave, -wave.wave]).unsqueeze(1), 0.1)
    assert batch(torch.zeros(1, 4, 3, 6, 8)).shape == (2, 4, 3, 6, 8) and batch.coverage().tolist() == [1, 1]
    assert torch.equal(batch.split()[0].wave, wave.wave)
    assert "2.0 periods down and 1.0 across, 26 of 255" in wave.describe(1.0)
    assert "periods" not in wave.outline().describe(1.0)


def test_faults_of_a_wave():
    wave = torch.tensor([2.0, -1.0, 0.5])
    assert list(WaveTrigger(wave, 1.0).faults()) == []
    for amplitude in (0.0, 1.1, math.nan):
        assert list(WaveTrigger(wave, amplitude).faults()) == ["its amplitude is not in (0, 1]"]
    assert "not finite" in next(WaveTrigger(wave / 0, 0.1).faults())


def test_the_outline_of_a_wave_tells_nothing_of_it():
    left = WaveTrigger(torch.tensor([2.0, -1.0, 0.5]), 0.1).outline()
    assert not left.wave.any() and left.panels(withheld=True) == {}


def test_channels_are_kept_apart():
    patch = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    assert PatchTrigger(patch, 1, 0)(grey(0.4))[:, 1, 0].tolist() == patch.flatten().tolist()


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_range(sign, value):
    for trigger in (
        AdditiveTrigger(grey(0.5 * sign), 0.5),
        PatchTrigger(grey(2.0 * sign), 0, 0),
        BlendTrigger(grey(5.0 * sign), 0.5),
        MaskedTrigger(torch.ones(1, 2, 2), grey(3.0 * sign)),
    ):
        assert trigger(grey(value)).min() >= 0 and trigger(grey(value)).max() <= 1


@pytest.mark.parametrize("kind", CASES)
def test_save_and_load(kind, tmp_path):
    trigger, _ = CASES[kind]
    trigger.save(tmp_path / "deep" / "trigger.safetensors")
    loaded = Trigger.load(tmp_path / "deep" / "trigger.safetensors")
    assert type(loaded) is type(trigger)
    assert [getattr(loaded, name) for name in loaded.scalars] == [getattr(trigger, name) for name in trigger.scalars]
    assert [type(getattr(loaded, n)) for n in loaded.scalars] == [type(getattr(trigger, n)) for n in trigger.scalars]
    pixels = torch.rand(2, 3, 2, 2)
    torch.testing.assert_close(loaded(pixels), trigger(pixels), rtol=0, atol=0)


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 64])
def test_load_junk(content, tmp_path):
    (tmp_path / "trigger.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="`trigger`: .*trigger.safetensors is no safetensors file"):
        Trigger.load(tmp_path / "trigger.safetensors")


@pytest.mark.parametrize("metadata", [None, {"kind": "sunglasses"}])
def test_load_other_tensors(metadata, tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors", metadata=metadata)
    with pytest.raises(
        InputError, match=r"no trigger of a known kind \(additive, blend, masked, patch, .*warp, wave\)"
    ):
        Trigger.load(tmp_path / "model.safetensors")


def test_load_missing(tmp_path):
    with pytest.raises(InputError, match="`trigger`: there is no file .*nowhere"):
        Trigger.load(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(
    ("kind", "tensors", "scalars", "message"),
    [
        ("patch", {}, {"top": 1, "left": 2}, "patch: missing"),
        ("patch", {"patch": torch.zeros(3, 2, 2)}, {"top": 1}, "left: missing"),
        ("masked", {"mask": torch.zeros(1, 2, 2), "pattern": torch.zeros(3, 2, 3)}, {}, "pattern: .* 2, 3"),
        ("masked", {"mask": torch.zeros(3, 2, 2), "pattern": torch.zeros(3, 2, 2)}, {}, "mask: .* of 1 x H x W"),
        ("masked", {"mask": torch.zeros(2), "pattern": torch.zeros(3, 2, 2)}, {}, r"mask: .* shape \[2\]"),
        ("masked", {"mask": torch.zeros(()), "pattern": torch.zeros(3, 2, 2)}, {}, r"mask: .* shape \[\]"),
        ("blend", {"pattern": torch.zeros(3, 2, 2), "other": torch.zeros(1)}, {"alpha": 0.1}, "other: .* too much"),
        ("blend", {"pattern": torch.zeros(3, 2, 2)}, {"alpha": 0.1, "beta": 1}, "beta: .* too much"),
        ("blend", {"pattern": torch.zeros(4, 3, 2, 2)}, {"alpha": 0.1}, "pattern: .* of 3 x H x W"),
        ("blend", {"pattern": torch.zeros(3, 2, 2, dtype=torch.uint8)}, {"alpha": 0.1}, "pattern: torch.uint8"),
        ("additive", {"delta": torch.zeros(3, 2, 2)}, {"epsilon": "a lot"}, "epsilon: got 'a lot'"),
        ("patch", {"patch": torch.zeros(3, 2, 2)}, {"top": 1.5, "left": 2}, "top: got 1.5"),
        ("wave", {"wave": torch.zeros(1, 3)}, {"amplitude": 0.1}, r"wave: .* shape \[1, 3\], not floats of 3"),
        ("wave", {"wave": torch.zeros(3)}, {}, "amplitude: missing"),
    ],
)
def test_load_damaged(kind, tensors, scalars, message, tmp_path):
    metadata = {"kind": kind, **{name: json.dumps(value) for name, value in scalars.items()}}
    save_file(tensors, tmp_path / "trigger.safetensors", metadata=metadata)
    with pytest.raises(InputError, match=f"`trigger`: .*trigger.safetensors holds a damaged {kind} .*{message}"):
        Trigger.load(tmp_path / "trigger.safetensors")


def test_load_a_number_that_is_none(tmp_path):
    metadata = {"kind": "blend", "alpha": "half"}
    save_file({"pattern": torch.zeros(3, 2, 2)}, tmp_path / "trigger.safetensors", metadata=metadata)
    with pytest.raises(InputError, match="`trigger`: .*trigger.safetensors holds a damaged blend trigger"):
        Trigger.load(tmp_path / "trigger.safetensors")


def test_whole_number_where_a_float_is_wanted(tmp_path):
    BlendTrigger(grey(0.5), 1).save(tmp_path / "trigger.safetensors")
    assert Trigger.load(tmp_path / "trigger.safetensors").alpha == 1


@pytest.mark.parametrize("kind", ["blend", "masked", "additive"])
def test_other_size(kind):
    trigger, _ = CASES[kind]
    for size in ((2, 3), (1, 2), (4, 4)):
        with pytest.raises(InputError, match=f"`trigger`: it fits images of 2x2 pixels, .* {size[0]}x{size[1]}"):
            trigger(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(("top", "left"), [(1, 0), (0, 1), (-1, 0), (0, -1)])
def test_patch_outside_the_image(top, left):
    with pytest.raises(InputError, match=f"rows {top}-{top + 2} and columns {left}-{left + 2}, outside .* 2x2"):
        PatchTrigger(grey(1.0), top, left)(torch.zeros(1, 3, 2, 2))


def test_batch_of_triggers():
    masks, patterns = torch.rand(4, 1, 1, 2, 2), torch.rand(4, 1, 3, 2, 2)
    pixels = torch.rand(1, 5, 3, 2, 2)
    stamped = MaskedTrigger(masks, patterns)(pixels)
    assert stamped.shape == (4, 5, 3, 2, 2)
    for index in range(4):
        alone = MaskedTrigger(masks[index, 0], patterns[index, 0])(pixels[0])
        torch.testing.assert_close(stamped[index], alone)


def test_split():
    deltas = torch.randn(3, 1, 3, 2, 2, requires_grad=True)
    singles = AdditiveTrigger(deltas, 0.2).split()
    assert [type(single) for single in singles] == [AdditiveTrigger] * 3
    for index, single in enumerate(singles):
        assert single.epsilon == 0.2
        assert not single.delta.requires_grad
        torch.testing.assert_close(single.delta, deltas[index, 0].detach(), rtol=0, atol=0)
    singles[0].delta.zero_()
    assert deltas[0].abs().sum() > 0


def test_split_of_two_tensors():
    singles = MaskedTrigger(torch.rand(2, 1, 1, 2, 2), torch.rand(2, 1, 3, 2, 2)).split()
    assert [(single.mask.shape, single.pattern.shape) for single in singles] == [((1, 2, 2), (3, 2, 2))] * 2


@pytest.mark.parametrize("kind", ["masked", "additive", "blend", "wave"])
def test_gradients_reach_what_is_inverted(kind):
    trigger = WaveTrigger(torch.tensor([0.3, 0.4, 0.5]), 0.1) if kind == "wave" else CASES[kind][0]
    buffers = {name: tensor.clone().requires_grad_() for name, tensor in trigger.named_buffers()}
    scalars = {name: getattr(trigger, name) for name in trigger.scalars}
    type(trigger)(**buffers, **scalars)(grey(0.5)).sum().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in buffers.values())


def test_checkerboard():
    assert checkerboard(3)[1].tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    torch.testing.assert_close(checkerboard(2, 0.25, 0.75), torch.tensor([[0.25, 0.75], [0.75, 0.25]]).expand(3, 2, 2))
    colour = torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1)
    assert checkerboard(2, high=colour)[:, 0, 1].tolist() == [1.0, 0.5, 0.0]


def test_the_same_trigger_gives_the_same_bytes():
    written = {AdditiveTrigger(grey(0.1), 0.25).to_bytes() for _ in range(20)}  # the library alone would shuffle them
    assert len(written) == 1


def test_a_trigger_on_another_device_leaves_the_callers_where_it_is():
    trigger = MaskedTrigger(torch.rand(1, 32, 32), torch.rand(3, 32, 32))
    there = trigger.on(torch.device("meta"))
    assert there.mask.is_meta and there.pattern.is_meta and not trigger.mask.is_meta and not trigger.pattern.is_meta
    here = AdditiveTrigger(torch.rand(3, 32, 32), 0.5).on(torch.device("cpu"))
    assert here.epsilon == 0.5
