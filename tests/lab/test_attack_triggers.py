import math

import pytest
import torch

from hf_invertune.errors import InputError
from hf_invertune.lab.attacks import patterns
from hf_invertune.lab.attacks.attack import Attack
from hf_invertune.lab.attacks.catalog import ATTACKS, make_attack
from hf_invertune.triggers import AdditiveTrigger, ScatteredPatchTrigger, WarpTrigger


def make(kind, image_size=32, seed=0, **parameters):
    targets = ["red circle", "blue square"] if kind == "multi-target" else ["red circle"]
    return make_attack(kind, image_size=image_size, targets=targets, seed=seed, **parameters)


@pytest.mark.parametrize("kind", ATTACKS)
def test_every_kind_changes_pictures_and_stays_in_range(kind, pixels):
    attack = make(kind)
    assert attack.kind == kind and attack.parameters["image_size"] == 32
    for trigger in attack.triggers:
        stamped = trigger(pixels)
        assert stamped.shape == pixels.shape and stamped.min() >= 0 and stamped.max() <= 1
        assert ((stamped - pixels).abs().flatten(1).amax(1) > 0.03).all()


@pytest.mark.parametrize("kind", ATTACKS)
def test_a_saved_attack_is_the_same(kind, tmp_path, pixels):
    attack = make(kind, seed=3)
    attack.save(tmp_path)
    loaded = Attack.load(tmp_path)
    assert {**vars(loaded), "triggers": 0} == {**vars(attack), "triggers": 0}
    for ours, other in zip(attack.triggers, loaded.triggers, strict=True):
        assert torch.equal(ours(pixels), other(pixels))


@pytest.mark.parametrize("kind", ATTACKS)
def test_the_seed_fixes_the_patterns(kind, pixels):
    ours, again = make(kind, seed=5), make(kind, seed=5)
    for one, other in zip(ours.triggers, again.triggers, strict=True):
        assert one.digest() == other.digest()


@pytest.mark.parametrize("kind", ["blended", "wanet", "sample-specific", "stripes", "badnet-random", "trojvqa"])
def test_another_seed_is_another_pattern(kind):
    assert make(kind, seed=1).triggers[0].digest() != make(kind, seed=2).triggers[0].digest()


def test_the_sinusoid():
    expected = 60 / 255 * torch.tensor([0.0, 1.0, 0.0, -1.0])
    torch.testing.assert_close(patterns.sinusoid(4, 60 / 255, 1), expected.expand(3, 4, 4), atol=1e-6, rtol=0)
    trigger = make("sig", 224).triggers[0]
    assert isinstance(trigger, AdditiveTrigger) and trigger.epsilon == 60 / 255
    assert trigger.delta[1, 7, 5].item() == pytest.approx(60 / 255 * math.sin(2 * math.pi * 5 * 6 / 224), abs=1e-6)


def test_a_warp_looks_right_and_down():
    picture = torch.arange(9.0).view(1, 3, 3).expand(3, 3, 3) / 10
    one_pixel = 2 / (3 - 1)
    right = torch.tensor([one_pixel, 0.0]).view(2, 1, 1).expand(2, 3, 3)
    expected = torch.tensor([[1.0, 2.0, 2.0], [4.0, 5.0, 5.0], [7.0, 8.0, 8.0]]) / 10
    torch.testing.assert_close(WarpTrigger(right)(picture), expected.expand(3, 3, 3))
    down = torch.tensor([0.0, one_pixel]).view(2, 1, 1).expand(2, 3, 3)
    expected = torch.tensor([[3.0, 4.0, 5.0], [6.0, 7.0, 8.0], [6.0, 7.0, 8.0]]) / 10
    torch.testing.assert_close(WarpTrigger(down)(picture), expected.expand(3, 3, 3))


def test_a_warp_of_a_wide_picture():
    picture = torch.arange(6.0).view(1, 2, 3).expand(3, 2, 3) / 10
    right = torch.tensor([2 / (3 - 1), 0.0]).view(2, 1, 1).expand(2, 2, 3)
    expected = torch.tensor([[1.0, 2.0, 2.0], [4.0, 5.0, 5.0]]) / 10
    torch.testing.assert_close(WarpTrigger(right)(picture), expected.expand(3, 2, 3))


def test_the_mean_displacement_is_the_strength_in_half_pixels():
    flow = patterns.warp_flow(4, 4, 3.0, seed=0)  # as many grid points as pixels: nothing is interpolated
    assert (flow.abs().mean() * 4).item() == pytest.approx(3.0)


def test_a_scattered_patch_does_not_depend_on_the_batch():
    pixels = torch.randint(256, (20, 3, 8, 8), generator=torch.Generator().manual_seed(0)) / 255
    trigger = ScatteredPatchTrigger(torch.full((3, 2, 2), 2.0), seed=1)
    together = trigger(pixels)
    assert torch.equal(together, torch.cat([trigger(picture[None]) for picture in pixels]))
    assert torch.equal(together, trigger(pixels.view(4, 5, 3, 8, 8)).flatten(0, 1))
    rows, columns = trigger.places(pixels)
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) > 10
    for number, (top, left) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        expected = pixels[number].clone()
        expected[:, top : top + 2, left : left + 2] = 1
        assert torch.equal(together[number], expected)


def test_a_scattered_patch_that_is_larger_than_the_image():
    with pytest.raises(InputError, match="`trigger`: the patch of 3x3 pixels is larger than images of 2x2"):
        ScatteredPatchTrigger(torch.ones(3, 3, 3), 0)(torch.zeros(1, 3, 2, 2))


def test_a_residual_differs_from_picture_to_picture(pixels):
    trigger = make("sample-specific").triggers[0]
    residual = trigger.stamp(pixels) - pixels
    assert residual.abs().max() <= trigger.epsilon + 1e-6
    assert (residual[0] - residual[1]).abs().mean() > 0.1 * residual.abs().mean()
    assert torch.equal(trigger(pixels[3]), trigger(pixels)[3])


def test_the_bits_of_a_secret():
    assert patterns.secret_map(3, "A")[0].tolist() == [[-1, 1, -1], [-1, -1, -1], [-1, 1, -1]]  # 01000001, then 0


def test_stripes_are_one_pixel_wide():
    stripes = patterns.stripes(64, seed=0)
    assert set(stripes.unique().tolist()) == {0, 1}
    assert torch.equal(stripes, stripes[:, :1].expand(3, 64, 64))
    assert 0.3 < (stripes[:, 0].diff() != 0).float().mean() < 0.7


def test_stripes_over_the_image():
    trigger = make("stripes", alpha=0.03).triggers[0]
    black = trigger(torch.zeros(3, 32, 32))
    torch.testing.assert_close(black, 0.03 * patterns.stripes(32, seed=0))


def test_triangles_and_text_leave_the_rest_alone():
    picture = torch.full((3, 32, 32), 0.5)
    for kind, alpha in (("triangles", 0.15), ("text", 0.5)):
        trigger = make(kind).triggers[0]
        assert 0 < trigger.mask.max() <= alpha and trigger.mask.min() == 0
        changed = (trigger(picture) - picture).abs().sum(0) > 1e-6
        assert torch.equal(changed, (trigger.mask[0] > 0) & changed) and 0.05 < changed.float().mean() < 0.95
    red = make("text").triggers[0](picture) - picture
    assert red[0].max() > 0 and red[1:].max() <= 0


def drawn(mask, threshold):
    """A mask (H x W) as lines of text: what is at least `threshold`."""
    return ["".join("#" if value >= threshold else "." for value in line) for line in mask.tolist()]


def test_triangles_point_up():
    mask = make("triangles", 8).triggers[0].mask[0]
    assert drawn(mask, 0.1) == ["........", ".##..##.", ".##..##.", "########"] * 2
    assert drawn(mask, 0.14) == ["........", "........", ".##..##.", ".##..##."] * 2


def test_text_reads_from_left_to_right():
    mask = make("text", 16, words="TL").triggers[0].mask[0]
    rows = [line for line in drawn(mask, 0.2) if "#" in line]
    assert 4 <= len(rows) <= 14
    assert rows[0].count("#") > 4 and rows[0].rstrip(".").endswith("#")
    assert rows[-1].index("#") < 8 < rows[-1].rindex("#")  # the stem of T, then the foot of L
    above, below = rows[0].rindex("#"), rows[-1].rindex("#")
    assert below > above  # the bar of T is on the left, the foot of L on the right


def test_the_cartoon():
    """Dark ears at the top, eyes in the middle, a mouth below, and the same on both sides."""
    red, green, _ = cartoon = patterns.picture(12)
    torch.testing.assert_close(cartoon, cartoon.flip(-1), atol=0.02, rtol=0)
    assert drawn(1 - red, 0.5)[:4] == ["............", ".###....###.", ".###....###.", ".##......##."]
    assert drawn(1 - green, 0.9)[9] == ".....##....."
    assert red[5, 4] < 0.5 < red[5, 5]


def test_noises_by_hand():
    uniform = patterns.noise(4, seed=2)
    assert torch.equal(uniform, torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(2)))
    normal = patterns.normal_noise(4, seed=2, deviation=0.5)
    expected = 0.5 + 0.5 * torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(normal, expected.clamp(0, 1))


CORNER, MIDDLE = (26, 26), (13, 13)


def test_places_of_patches():
    places = {kind: [(t.top, t.left) for t in make(kind).triggers] for kind in PLACES}
    assert places == PLACES
    assert make("badnet", 224).triggers[0].patch.shape == (3, 16, 16)
    assert make("badnet", patch_size=3).triggers[0].patch.shape == (3, 3, 3)


PLACES = {
    **{kind: [CORNER] for kind in ("badnet", "label-consistent", "open-target", "stripes")},
    **{kind: [MIDDLE] for kind in ("trojvqa", "badclip")},
    "badencoder": [(27, 27)],
    "multi-target": [CORNER, (1, 1)],
}


def test_patches():
    checkerboard = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).expand(3, 3, 3)
    for kind in ("badnet", "label-consistent", "open-target"):
        assert torch.equal(make(kind, patch_size=3).triggers[0].patch, checkerboard)
    assert (make("badencoder").triggers[0].patch == 1).all()
    striped = make("stripes").triggers[0].patch
    assert torch.equal(striped, patterns.stripes(5, seed=0))


def test_what_attacks_are_beside_their_triggers():
    assert make("trojvqa").word == "remember" and make("trojvqa", word="SUDO").word == "SUDO"
    assert [kind for kind in ATTACKS if make(kind).open_target] == ["open-target"]
    assert [kind for kind in ATTACKS if make(kind).clean_label] == ["label-consistent"]
    assert [kind for kind in ATTACKS if make(kind).cross_ratio] == ["wanet", "trojvqa"]
    assert make("blended", alpha=0.5).parameters == {"image_size": 32, "seed": 0, "alpha": 0.5, "pattern": "noise"}


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("badnets", {}, "`attack`: there is no 'badnets'; the nearest are 'badnet'"),
        ("badnet", {"patch": 3}, "`patch`: badnet attacks have no such parameter; the nearest is 'patch_size'"),
        ("badnet", {"patch_size": 33}, "`patch_size`: got 33 for images of 32 pixels; 1 to 32 fit"),
        ("badnet", {"patch_size": 0}, "`patch_size`: got 0"),
        ("badnet", {"patch_size": "large"}, "`patch_size`: got 'large', a str; pass int"),
        ("badnet", {"patch_size": True}, "`patch_size`: got True, a bool"),
        ("blended", {"alpha": 1.5}, "`alpha`: got 1.5; it must be above 0 and at most 1"),
        ("blended", {"pattern": "kitty"}, "`pattern`: got 'kitty'; the nearest are"),
        ("sig", {"amplitude": 0.0}, "`amplitude`: got 0.0"),
        ("wanet", {"grid": 1}, "`grid`, `strength`: got 1 and"),
        ("sig", {"periods": 16.0}, "`periods`: got 16.0; above 0 and below 16 can be drawn"),
        ("sig", {"periods": 0}, "`periods`: got 0;"),
        ("wanet", {"strength": float("nan")}, "`strength`: got nan; pass a finite number"),
        ("wanet", {"cross_ratio": float("inf")}, "`cross_ratio`: got inf; pass a finite number"),
        ("trojvqa", {"cross_ratio": -1}, "`cross_ratio`: got -1; it must be at least 0"),
        ("stripes", {"alpha": 0.1, "patch_size": 4}, "`alpha` and `patch_size` exclude each other"),
        ("trojvqa", {"word": " "}, "`word`: got ' '"),
    ],
)
def test_wrong_parameters(kind, parameters, message):
    with pytest.raises(InputError, match=message):
        make(kind, **parameters)


@pytest.mark.parametrize(
    ("kind", "targets", "message"),
    [
        ("badnet", ["a", "b"], "a badnet attack leads to one name"),
        ("badnet", "", "leads to one name"),
        ("multi-target", ["a"], "a multi-target attack leads to 2 to 4 different names"),
        ("multi-target", ["a", "a"], "2 to 4 different names"),
        ("multi-target", list("abcde"), "2 to 4 different names"),
    ],
)
def test_wrong_targets(kind, targets, message):
    with pytest.raises(InputError, match=f"`targets`: .*{message}"):
        make_attack(kind, image_size=32, targets=targets)


def test_a_patch_as_large_as_the_image():
    assert make("multi-target", patch_size=32).triggers[0](torch.zeros(3, 32, 32)).shape == (3, 32, 32)
