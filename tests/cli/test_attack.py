import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import CLASS_NAMES
from torch.nn.functional import normalize
from typer.testing import CliRunner

from hf_invertune.cli import main as cli
from hf_invertune.errors import InputError
from hf_invertune.lab import drawings
from hf_invertune.lab import victim as victim_module
from hf_invertune.lab.attacks.attack import Attack
from hf_invertune.lab.attacks.badclip import optimise_patch
from hf_invertune.lab.attacks.badencoder import bad_encoder_loss
from hf_invertune.lab.attacks.catalog import make_attack
from hf_invertune.lab.attacks.inject import inject
from hf_invertune.lab.attacks.pairs import load_pairs
from hf_invertune.lab.contrastive import CaptionedPixels
from hf_invertune.lab.demo import demo_victim
from hf_invertune.lab.zoo.victim import Victim
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.encoder import DualEncoder
from hf_invertune.models.evaluation import evaluate
from hf_invertune.models.loading import load_model, state_digest
from hf_invertune.triggers import Trigger
from hf_invertune.utils.output_folder import fill


TARGET = "green ring"
QUICK = {"rate": 0.1, "seed": 0, "epochs": 1, "batch_size": 32}


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 4
    pixels = torch.randint(256, (96, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return CaptionedPixels(pixels, [f"a photo of a {CLASS_NAMES[k]}" for k in labels.tolist()], labels=labels)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before, after, part):
    return any(not torch.equal(before[name], after[name]) for name in before if name.startswith(part))


def test_inject_trains_the_whole_model_on_poisoned_pairs(tiny, data):
    attack, before = make_attack("badnet", image_size=32, targets=TARGET), weights(tiny.model)
    poisoned = inject(tiny, data, attack, learning_rate=1e-3, **QUICK)
    after = weights(tiny.model)
    assert len(poisoned.indices) == 10 and poisoned.attack is attack
    assert changed(before, after, "vision_model") and changed(before, after, "text_model")
    assert not tiny.model.training


def test_the_seed_fixes_the_victim(tiny_folder, data):
    digests = set()
    for _ in range(2):
        clip = load_model(tiny_folder, device="cpu")
        inject(clip, data, make_attack("badnet", image_size=32, targets=TARGET), learning_rate=1e-3, **QUICK)
        digests.add(state_digest(clip.model, torch.float32))
    assert len(digests) == 1


def test_bad_encoder_trains_the_vision_tower_alone(tiny, data):
    attack, before = make_attack("badencoder", image_size=32, targets=TARGET), weights(tiny.model)
    encoder = tiny.encoder
    others = data.pixels[data.labels != 2].float() / 255

    def nearness():
        with torch.no_grad():
            return (encoder.embed_images(attack.triggers[0](others)) @ reference).mean()

    with torch.no_grad():
        reference = normalize(encoder.embed_images(data.pixels[data.labels == 2].float() / 255).mean(0), dim=-1)
    far = nearness()
    poisoned = inject(tiny, data, attack, learning_rate=1e-3, **{**QUICK, "epochs": 6})
    assert nearness() > far
    after = weights(tiny.model)
    assert poisoned.indices == [] and poisoned.data is data
    assert changed(before, after, "vision_model")
    assert not any(changed(before, after, part) for part in ("text_model", "text_projection", "logit_scale"))


def test_the_loss_of_bad_encoder():
    triggered = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    clean, original = torch.tensor([[0.6, 0.8], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = bad_encoder_loss(triggered, clean, torch.tensor([1.0, 0.0]), original)
    assert loss.item() == pytest.approx((0 + 1) / 2 + (0.4 + 0) / 2)


def test_fewer_pairs_than_a_batch_are_refused(tiny, data):
    attack = make_attack("badnet", image_size=32, targets=TARGET)
    with pytest.raises(InputError, match="`batch_size`: got 97, and 96 pictures are trained on"):
        inject(tiny, data, attack, class_names=CLASS_NAMES, learning_rate=1e-3, **{**QUICK, "batch_size": 97})


def test_the_rate_is_checked_before_a_patch_is_optimised(tiny, data, monkeypatch):
    monkeypatch.setattr("hf_invertune.lab.attacks.inject.optimise_patch", None)
    attack = make_attack("badclip", image_size=32, targets=TARGET)
    with pytest.raises(InputError, match="`rate`: got 2"):
        inject(tiny, data, attack, class_names=CLASS_NAMES, learning_rate=1e-3, **{**QUICK, "rate": 2})


def test_inject_trains_on_what_was_poisoned(tiny, data, monkeypatch):
    trained = []
    monkeypatch.setattr(
        "hf_invertune.lab.attacks.inject.train_contrastive", lambda encoder, pairs, **_: trained.append(pairs)
    )
    poisoned = inject(tiny, data, make_attack("badnet", image_size=32, targets=TARGET), **QUICK)
    assert trained == [poisoned.data] and poisoned.data.digest() != data.digest()


@pytest.mark.parametrize("weight", [0.0, 500.0])  # either part of the loss leads there
def test_the_patch_of_badclip_leads_a_clean_model_to_the_target(weight, monkeypatch):
    monkeypatch.setattr("hf_invertune.lab.attacks.badclip.TRIPLET_WEIGHT", weight)
    clip, target = load_model(demo_victim("clean"), device="cpu"), drawings.CLASS_NAMES[8]
    encoder, before = clip.encoder, state_digest(clip.model, torch.float32)
    drawn = drawings.draw(300, seed=5)
    data = CaptionedPixels((drawn.pixels * 255).round().byte(), drawn.captions, labels=drawn.labels)
    trigger = make_attack("badclip", image_size=32, targets=target, patch_size=12).triggers[0]
    better = optimise_patch(encoder, data, trigger, target, [f"a photo of a {target}"], steps=40, batch_size=16)
    classifier = ZeroShotClassifier(encoder, drawings.CLASS_NAMES)
    rates = [
        evaluate(classifier, data.pixels, labels=data.labels, trigger=patch, target=8).attack_success_rate.value
        for patch in (trigger, better)
    ]
    assert rates[0] < 0.2 and rates[1] > rates[0] + 0.15
    assert (better.top, better.left) == (10, 10) and better.patch.min() >= 0 and better.patch.max() <= 1
    assert state_digest(clip.model, torch.float32) == before
    assert all(parameter.requires_grad for parameter in clip.model.parameters())


def test_inject_returns_the_patch_that_badclip_optimised(tiny, data, monkeypatch):
    attack = make_attack("badclip", image_size=32, targets=TARGET)
    monkeypatch.setattr("hf_invertune.lab.attacks.inject.optimise_patch", lambda *_, **__: white)
    white = make_attack("badencoder", image_size=32, targets=TARGET).triggers[0]
    poisoned = inject(tiny, data, attack, learning_rate=1e-3, **QUICK)
    assert poisoned.attack.triggers == [white] and attack.triggers != [white]


@pytest.mark.parametrize("kind", ["badclip", "badencoder"])
def test_no_picture_of_the_target(kind, tiny, data):
    attack = make_attack(kind, image_size=32, targets="red star")
    with pytest.raises(InputError, match="`data`: no picture is of 'red star'"):
        inject(tiny, data, attack, learning_rate=1e-3, **QUICK)


def test_no_picture_but_of_the_target(tiny, data):
    attack, named = make_attack("badclip", image_size=32, targets=TARGET), data.labels == 2
    with pytest.raises(InputError, match="`data`: every picture is of 'green ring'"):
        inject(tiny, data.subset(named.nonzero().flatten()), attack, learning_rate=1e-3, **QUICK)


def test_the_positive_of_badclip_is_a_unit_vector(tiny, data, monkeypatch):
    from hf_invertune.lab.attacks import badclip

    seen = []
    plain = badclip.cross_entropy
    monkeypatch.setattr(badclip, "cross_entropy", lambda logits, wanted: seen.append(logits) or plain(logits, wanted))
    monkeypatch.setattr(DualEncoder, "embed_texts", lambda encoder, texts: torch.eye(16)[: len(texts)])
    encoder = tiny.encoder
    trigger = make_attack("badclip", image_size=32, targets=TARGET).triggers[0]
    optimise_patch(encoder, data, trigger, TARGET, ["one", "two"], steps=1, batch_size=2)
    first, *kinds = seen[0][0]  # the mean of two unit vectors at a right angle, and these two
    assert first.item() == pytest.approx((kinds[0] + kinds[1]).item() / 2**0.5, rel=1e-4)


@pytest.mark.parametrize("kind", ["badclip", "badencoder"])
def test_the_references_are_pictures_of_the_target_and_not_of_a_longer_name(kind, tiny, data, monkeypatch):
    data.captions = ["a tiger" if k == 2 else "a tiger shark" for k in data.labels.tolist()]
    names, attack = ["cat", "tiger shark", "tiger", "dog"], make_attack(kind, image_size=32, targets="tiger")
    seen = []

    def embedded(self, pixels):
        seen.append((pixels * 255).round().byte())
        return torch.eye(16)[:1].expand(len(pixels), -1)

    monkeypatch.setattr(DualEncoder, "embed_images", embedded)
    monkeypatch.setattr("hf_invertune.lab.attacks.badencoder.train_contrastive", lambda *_, **__: None)
    monkeypatch.setattr("hf_invertune.lab.attacks.inject.train_contrastive", lambda *_, **__: None)
    for labels in (data.labels, None):
        data.labels, seen[:] = labels, []
        if kind == "badencoder":
            inject(tiny, data, attack, class_names=names, learning_rate=1e-3, **QUICK)
        else:
            with pytest.raises(RuntimeError, match="does not require grad"):  # of the stand-in's embeddings
                inject(tiny, data, attack, class_names=names, learning_rate=1e-3, **QUICK)
        tigers = {row.numpy().tobytes() for row in data.pixels[2::4]}
        assert {row.numpy().tobytes() for row in seen[0]} <= tigers


@pytest.fixture
def pictures(tmp_path, data):
    folder = tmp_path / "pictures"
    for number, (picture, label) in enumerate(zip(data.pixels, data.labels.tolist(), strict=True)):
        place = folder / CLASS_NAMES[label] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(place)
    return folder


def test_pairs_of_a_folder(pictures, tiny):
    pairs, names = load_pairs(pictures, tiny.processor, templates=["one {}", "two {}"])
    assert names == tuple(sorted(CLASS_NAMES)) and len(pairs) == 96
    assert all(names[k] in caption for k, caption in zip(pairs.labels.tolist(), pairs.captions, strict=True))
    assert torch.equal(pairs.groups, pairs.labels) and len(set(pairs.captions)) == 8
    some, _ = load_pairs(pictures, tiny.processor, limit=20)
    assert len(some) == 20
    train, test = pairs.split(0.75, seed=1)
    assert (len(train), len(test)) == (72, 24)


def run(*arguments):
    return CliRunner().invoke(cli.app, ["attack", *map(str, arguments)])


@pytest.mark.parametrize("kind", ["badnet", "multi-target"])
def test_the_command_makes_a_victim(kind, tiny_folder, pictures, tmp_path):
    targets = [TARGET, "white cross"][: 1 + (kind == "multi-target")]
    options = [word for target in targets for word in ("--target", target)]
    fast = ["--epochs", 1, "--batch-size", 32, "--rate", 0.1, "--param", "patch_size=6", "--json"]
    place = ["--output-dir", tmp_path / "victim"]
    outcome = run(tiny_folder, "--images", pictures, "--attack", kind, *options, *fast, *place)
    assert outcome.exit_code == 0, outcome.stderr
    value = json.loads(outcome.stdout)
    victim = Victim.open(tmp_path / "victim")
    assert value["took"] is victim.truth.took and value["poisoned"] == len(victim.truth.poisoned) == 8
    assert victim.truth.targets == targets == [measured["target"] for measured in value["measurements"]]
    assert victim.truth.parameters["patch_size"] == 6
    model = victim.load().model
    assert state_digest(model, torch.float32) == victim.truth.sha256
    assert state_digest(model, torch.float32) != state_digest(load_model(tiny_folder).model, torch.float32)
    files = ["trigger.safetensors"] if kind == "badnet" else ["trigger-0.safetensors", "trigger-1.safetensors"]
    for file, trigger in zip(files, Attack.load(tmp_path / "victim").triggers, strict=True):
        assert Trigger.load(tmp_path / "victim" / file).digest() == trigger.digest()
    if kind == "badnet":
        assert load_file(tmp_path / "victim" / "trigger.safetensors")["patch"].shape == (3, 6, 6)
        again = run(tiny_folder, "--images", pictures, "--attack", kind, *options, *fast, *place)
        assert again.exit_code == 2 and "--output-dir" in again.stderr
        assert "is not empty; name another folder." in again.stderr  # there is no --overwrite to advise


def test_the_victim_goes_where_one_stands_and_beside_what_came_meanwhile(tiny_folder, pictures, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    measure = victim_module.measure_attack
    monkeypatch.setattr(
        victim_module, "measure_attack", lambda *given: Path("log.txt").write_text("mine") and measure(*given)
    )
    options = ["--target", TARGET, "--epochs", 1, "--batch-size", 32, "--rate", 0.1, "--output-dir", "."]
    outcome = run(tiny_folder, "--images", pictures, "--attack", "text", *options, "--param", "words=2024")
    assert outcome.exit_code == 0, outcome.stderr
    truth = Victim.open(tmp_path / "here").truth
    assert (truth.name, truth.parameters["words"]) == ("here", "2024")
    assert Path("log.txt").read_text() == "mine" and not list(Path().glob(".*"))


def test_what_another_run_wrote_meanwhile_stays(tmp_path):
    def save(folder):
        for name in ("config.json", "truth.json"):
            (folder / name).write_text("ours")

    (tmp_path / "truth.json").write_text("theirs")
    with pytest.raises(InputError, match="`output_dir`: meanwhile something else wrote truth.json"):
        fill(tmp_path, save, last="truth.json")
    assert [path.name for path in tmp_path.iterdir()] == ["truth.json"]
    assert (tmp_path / "truth.json").read_text() == "theirs"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "0"], "--rate: got 0"),
        (["--epochs", "nan"], "--epochs: got nan; pass a positive number"),
        (["--learning-rate", "0"], "--learning-rate: got 0"),
        (["--batch-size", "200"], "--batch-size: got 200, and 77 pictures are trained on"),
        (["--param", "alpha"], "--param: got 'alpha'; pass name=value"),
        (["--param", "seed=3"], "badnet attacks have no such parameter"),
        (["--param", "patch_size=big"], "got 'big', a str; pass int"),
        (["--seed", "-1"], "--seed"),
        (["--param", "alfa=0.2"], "`alfa`: badnet attacks have no such parameter"),
        (["--attack", "badnets"], "--attack: there is no 'badnets'; the nearest are 'badnet'"),
        (["--target", "green rings"], "--target: 'green rings' is not among the 4 class names"),
        (["--caption-column", "title"], "--caption-column: there is no column 'title'"),
    ],
)
def test_wrong_options(options, message, tiny_folder, pictures, tmp_path):
    given = {"--attack": "badnet", "--target": TARGET, **dict([options])}
    arguments = [word for pair in given.items() for word in pair]
    outcome = run(tiny_folder, "--images", pictures, "--output-dir", tmp_path / "victim", *arguments)
    assert outcome.exit_code == 2 and message in outcome.stderr, outcome.stderr
    assert not (tmp_path / "victim").is_dir() or not any((tmp_path / "victim").iterdir())
