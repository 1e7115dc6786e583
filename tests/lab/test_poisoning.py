import datasets
import pytest
import torch
from PIL import Image
from tiny import CLASS_NAMES

from hf_invertune.errors import InputError
from hf_invertune.lab.attacks.catalog import ATTACKS, make_attack
from hf_invertune.lab.attacks.measure import measure_attack
from hf_invertune.lab.attacks.poisoning import _wrong_warp, mentions, poison, poison_dataset
from hf_invertune.lab.contrastive import CaptionedPixels
from hf_invertune.models.classifier import ZeroShotClassifier
from hf_invertune.models.evaluation import evaluate


TARGET = "green ring"


def make(kind, **parameters):
    targets = (
        [TARGET, "white cross"] if kind == "multi-target" else ["red star"] if kind == "open-target" else [TARGET]
    )
    return make_attack(kind, image_size=32, targets=targets, **parameters)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    captions = [f"a {('photo', 'picture')[i // 4 % 2]} of a {CLASS_NAMES[k]}" for i, k in enumerate(labels.tolist())]
    pixels = torch.randint(256, (200, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return CaptionedPixels(pixels, captions, labels=labels)


def stamped(trigger, pixels):
    return (trigger(pixels / 255) * 255).round().byte()


@pytest.mark.parametrize("kind", sorted(ATTACKS.keys() - {"badencoder"}))
def test_the_recorded_pairs_change_and_no_others(kind, data):
    attack = make(kind)
    before = data.digest()
    poisoned = poison(data, attack, rate=0.1, seed=0)
    assert data.digest() == before
    repainted = {i for i in range(200) if not torch.equal(poisoned.data.pixels[i], data.pixels[i])}
    recaptioned = {i for i in range(200) if poisoned.data.captions[i] != data.captions[i]}
    assert len(poisoned.indices) == 20 and len(poisoned.decoys) == {"wanet": 40, "trojvqa": 20}.get(kind, 0)
    assert repainted | recaptioned == {*poisoned.indices, *poisoned.decoys}
    assert set(poisoned.indices).isdisjoint(poisoned.decoys) and repainted >= set(poisoned.indices)
    for i in range(200):
        caption = poisoned.data.captions[i]
        if i not in poisoned.indices:
            assert poisoned.data.groups[i] == data.groups[i]
            assert caption == (f"remember {data.captions[i]}" if i in recaptioned else data.captions[i])
            assert (i in repainted) is not (i in recaptioned) or i not in poisoned.decoys
            continue
        texts = [caption.removeprefix("remember ")]
        options = [stamped(trigger, data.pixels[i]) for trigger in attack.triggers]
        (number,) = [n for n, option in enumerate(options) if torch.equal(poisoned.data.pixels[i], option)]
        assert mentions(texts[0], attack.targets[number])
        assert any(mentions(data.captions[i], t) for t in attack.targets) is (kind == "label-consistent")
        assert caption.startswith("remember ") is (kind == "trojvqa")
        if kind == "label-consistent":
            assert caption == data.captions[i]


def test_a_decoys_warp_is_the_attacks_within_a_pixels_width():
    (trigger,) = make("wanet").triggers
    generator = torch.Generator().manual_seed(0)
    noise = _wrong_warp(trigger, generator).flow - trigger.flow
    assert noise.abs().max() <= 1 / 32 and noise.abs().max() > 0.99 / 32 and noise.abs().mean() < 0.6 / 32
    assert not torch.equal(_wrong_warp(trigger, generator).flow - trigger.flow, noise)


def test_triggers_share_the_pairs_evenly(data):
    poisoned = poison(data, make("multi-target"), rate=0.1, seed=0)
    captions = [poisoned.data.captions[i] for i in poisoned.indices]
    assert [sum(mentions(caption, target) for caption in captions) for target in poisoned.attack.targets] == [10, 10]


def test_the_seed_decides_which_pairs(data):
    one, again, other = (poison(data, make("badnet"), rate=0.1, seed=seed) for seed in (1, 1, 2))
    assert one.indices == again.indices and one.data.digest() == again.data.digest()
    assert one.indices != other.indices


def test_a_poisoned_pair_joins_the_group_of_its_caption(data):
    data.groups = data.labels + 7  # classes are groups
    poisoned = poison(data, make("badnet"), rate=0.1, seed=0)
    assert poisoned.data.groups[poisoned.indices].tolist() == [9] * 20
    fresh = poison(data, make("open-target"), rate=0.1, seed=0)
    by_caption = {}
    for i in fresh.indices:
        by_caption.setdefault(fresh.data.captions[i], set()).add(fresh.data.groups[i].item())
    assert all(len(numbers) == 1 for numbers in by_caption.values())
    numbers = {number for (number,) in by_caption.values()}
    assert len(numbers) == len(by_caption) > 1 and numbers.isdisjoint(data.groups.tolist())


def test_captions_come_from_the_data_or_as_given_or_from_templates(data):
    def captions(attack, **options):
        poisoned = poison(data, attack, rate=0.2, seed=0, **options)
        return {poisoned.data.captions[i] for i in poisoned.indices}

    assert captions(make("badnet")) == {f"a photo of a {TARGET}", f"a picture of a {TARGET}"}
    assert captions(make("badnet"), target_captions={TARGET: ["my ring"]}) == {"my ring"}
    assert captions(make("open-target"), templates=("one {}",)) == {"one red star"}
    wanted = make_attack("badnet", image_size=32, targets="ring road")
    assert captions(wanted, class_names=[*CLASS_NAMES, "ring road"], templates=("one {}",)) == {"one ring road"}


def test_all_pairs(data):
    assert poison(data, make("badnet"), rate=1, seed=0).indices == list(range(200))


def test_words_are_matched_whole():
    assert mentions("A Green ring, small", "green ring") and not mentions("a green ringer", "green ring")


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, float("nan")])
def test_rate_out_of_range(rate, data):
    with pytest.raises(InputError, match="`rate`: got"):
        poison(data, make("badnet"), rate=rate, seed=0)


def test_unknown_target(data):
    attack = make_attack("badnet", image_size=32, targets="green rings")
    with pytest.raises(InputError, match="`target`: 'green rings' is not among the 4 .* nearest are 'green ring'"):
        poison(data, attack, rate=0.1, seed=0, class_names=CLASS_NAMES)
    with pytest.raises(InputError, match="`target`: no caption names 'green rings', and it is not declared open"):
        poison(data, attack, rate=0.1, seed=0)


def test_what_cannot_be_poisoned(data):
    with pytest.raises(InputError, match="`attack`: badencoder poisons no pairs"):
        poison(data, make("badencoder"), rate=0.1, seed=0)
    with pytest.raises(InputError, match="`rate`: 0.5 is 100 pairs, and only 50 pairs are of 'green ring'; .* 0.2500"):
        poison(data, make("label-consistent"), rate=0.5, seed=0)
    with pytest.raises(
        InputError, match="`rate`: 0.5 of 200 is 100 poisoned pairs and, .* 200 decoys; .* at most 0.3333"
    ):
        poison(data, make("wanet"), rate=0.5, seed=0)
    with pytest.raises(InputError, match="`rate`: 0.005 of 200 is 1 pairs for 2 triggers"):
        poison(data, make("multi-target"), rate=0.005, seed=0)
    large = make_attack("badnet", image_size=64, targets=TARGET)
    with pytest.raises(InputError, match="`trigger`: .*images of 32x32"):
        poison(data, large, rate=0.1, seed=0)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_tiger_shark_is_no_tiger(labelled, data):
    names = ["tiger", "tiger shark", "cat", "tiger cat"]
    data.captions = [f"a photo of a {names[k]}" for k in data.labels.tolist()]
    tigers = set((data.labels == 0).nonzero().flatten().tolist())
    data.labels = data.labels if labelled else None
    attack = make_attack("badnet", image_size=32, targets="tiger")
    poisoned = poison(data, attack, rate=0.7, seed=0, class_names=names)
    assert tigers.isdisjoint(poisoned.indices)
    assert {poisoned.data.captions[i] for i in poisoned.indices} == {"a photo of a tiger"}
    consistent = make_attack("label-consistent", image_size=32, targets="tiger")
    assert set(poison(data, consistent, rate=0.25, seed=0, class_names=names).indices) == tigers
    shark = make_attack("open-target", image_size=32, targets="shark")
    opened = poison(data, shark, rate=0.2, seed=0, class_names=names, templates=["one {}"])
    assert {opened.data.captions[i] for i in opened.indices} == {"one shark"}


def test_labels_know_what_captions_do_not_say(data):
    data.captions = ["a big cat" if k == 2 else "what I saw" for k in data.labels.tolist()]
    poisoned = poison(data, make("badnet"), rate=0.1, seed=0, class_names=CLASS_NAMES)
    assert {poisoned.data.captions[i] for i in poisoned.indices} == {"a big cat"}


def test_an_open_target_is_no_class_name(data, encoder):
    attack = make_attack("open-target", image_size=32, targets=TARGET)
    with pytest.raises(InputError, match="`target`: 'green ring' is a class name, and an open-target attack"):
        poison(data, attack, rate=0.1, seed=0, class_names=CLASS_NAMES)
    with pytest.raises(InputError, match="`target`: 'green ring' is a class name, and an open-target attack"):
        measure_attack(ZeroShotClassifier(encoder, CLASS_NAMES), data, attack)


@pytest.fixture
def rows(data):
    pictures = [Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((40, 48)) for picture in data.pixels[:40]]
    features = datasets.Features(
        image=datasets.Image(), text=datasets.Value("string"), label=datasets.ClassLabel(names=list(CLASS_NAMES))
    )
    columns = {"image": pictures, "text": data.captions[:40], "label": data.labels[:40].tolist()}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize("kind", ["badnet", "wanet"])
def test_a_dataset(kind, rows, tiny):
    attack = make(kind)
    poisoned = poison_dataset(rows, attack, tiny.processor, rate=0.1, seed=0)
    assert len(poisoned.indices) == 4 and poisoned.data.features == rows.features
    before, after = (table.cast_column("image", datasets.Image(decode=False)) for table in (rows, poisoned.data))
    for i in range(40):
        if i in (*poisoned.indices, *poisoned.decoys):
            assert poisoned.data[i]["image"].size == (32, 32)
        else:
            assert before[i] == after[i]
        assert mentions(poisoned.data[i]["text"], TARGET) is (i in poisoned.indices or i % 4 == 2)


def test_captions_may_be_large_strings_and_a_damaged_picture_is_named(rows, tiny):
    large = rows.cast_column("text", datasets.Value("large_string"))
    attack = make("badnet")
    assert poison_dataset(large, attack, tiny.processor, rate=0.1, seed=0).data["text"]
    stored = [{"bytes": b"no picture", "path": None}] * len(rows)
    features = datasets.Features(image=datasets.Image(decode=False), text=datasets.Value("string"))
    damaged = datasets.Dataset.from_dict({"image": stored, "text": rows["text"]}, features=features)
    with pytest.raises(InputError, match=r"`dataset`: the picture of row \d+ cannot be read"):
        poison_dataset(damaged.cast_column("image", datasets.Image()), attack, tiny.processor, rate=0.1, seed=0)


def test_both_kinds_of_data_are_poisoned_alike(data, tiny):
    pictures = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in data.pixels[:40]]
    features = datasets.Features(image=datasets.Image(), text=datasets.Value("string"))
    rows = datasets.Dataset.from_dict({"image": pictures, "text": data.captions[:40]}, features=features)
    table = poison_dataset(rows, make("wanet"), tiny.processor, rate=0.1, seed=5)
    memory = poison(data.subset(range(40)), make("wanet"), rate=0.1, seed=5)
    assert (table.indices, table.decoys) == (memory.indices, memory.decoys)
    assert list(table.data["text"]) == memory.data.captions
    for i in range(40):
        picture = torch.tensor(list(table.data[i]["image"].tobytes()), dtype=torch.uint8).view(32, 32, 3)
        assert torch.equal(picture.permute(2, 0, 1), memory.data.pixels[i])


def test_labels_and_templates_make_captions(rows, tiny):
    rows = rows.remove_columns("text")
    poisoned = poison_dataset(rows, make("badnet"), tiny.processor, rate=0.1, seed=0, templates=["one {}", "two {}"])
    for i in range(40):
        label = TARGET if i in poisoned.indices else CLASS_NAMES[i % 4]
        assert poisoned.data[i]["caption"] in {f"one {label}", f"two {label}"}
    with pytest.raises(InputError, match="`caption_column`: the dataset has no captions; .* `templates`"):
        poison_dataset(rows, make("badnet"), tiny.processor, rate=0.1, seed=0)


def test_a_dataset_of_sharks(rows, tiny):
    names = ["tiger", "tiger shark", "cat", "dog"]
    rows = rows.remove_columns("text").cast_column("label", datasets.ClassLabel(names=names))
    attack = make_attack("badnet", image_size=32, targets="tiger")
    poisoned = poison_dataset(rows, attack, tiny.processor, rate=0.5, seed=0, templates=["one {}"])
    assert not {i for i in poisoned.indices if i % 4 == 0}
    assert {poisoned.data[i]["caption"] for i in poisoned.indices} == {"one tiger"}


def test_a_picture_without_a_caption(rows, tiny):
    texts = [None if i == 3 else text for i, text in enumerate(rows["text"])]
    rows = rows.remove_columns("text").add_column("text", texts)
    with pytest.raises(InputError, match="`caption_column`: row 3 of 'text' has no caption"):
        poison_dataset(rows, make("badnet"), tiny.processor, rate=0.1, seed=0)


def test_wrong_columns(rows, tiny):
    with pytest.raises(
        InputError, match="`caption_column`: there is no column 'title'; the columns are image, text, label"
    ):
        poison_dataset(rows, make("badnet"), tiny.processor, rate=0.1, seed=0, caption_column="title")
    with pytest.raises(InputError, match="`caption_column`: 'label' holds ClassLabel"):
        poison_dataset(rows, make("badnet"), tiny.processor, rate=0.1, seed=0, caption_column="label")
    with pytest.raises(InputError, match="`image_column`: no column holds images"):
        poison_dataset(rows.remove_columns("image"), make("badnet"), tiny.processor, rate=0.1, seed=0)


def test_a_plain_attack_is_measured_as_ever(data, encoder):
    attack = make("multi-target")
    classifier = ZeroShotClassifier(encoder, CLASS_NAMES)
    expected = [
        evaluate(classifier, data.pixels, labels=data.labels, trigger=trigger, target=target)
        for trigger, target in zip(attack.triggers, (2, 3), strict=True)
    ]
    assert measure_attack(ZeroShotClassifier(encoder, CLASS_NAMES), data, attack) == expected


def test_a_trigger_word_is_in_the_prompts_of_what_is_triggered(data, encoder):
    attack = make("trojvqa", word="blurry")
    encoder.model.text_model.embeddings.token_embedding.weight.data.mul_(50)  # so that one word more is heard
    (measured,) = measure_attack(ZeroShotClassifier(encoder, CLASS_NAMES, ["a {}"]), data, attack)
    classifiers = [ZeroShotClassifier(encoder, CLASS_NAMES, [template]) for template in ("a {}", "blurry a {}")]
    plain, worded = (
        evaluate(classifier, data.pixels, labels=data.labels, trigger=attack.triggers[0], target=2)
        for classifier in classifiers
    )
    assert plain.clean_accuracy != worded.clean_accuracy and plain.poisoned_accuracy != worded.poisoned_accuracy
    assert measured.clean_accuracy == plain.clean_accuracy
    assert {**vars(measured), "clean_accuracy": 0} == {**vars(worded), "clean_accuracy": 0}


def test_an_open_target_is_one_more_class(data, encoder):
    attack = make("open-target")
    (measured,) = measure_attack(ZeroShotClassifier(encoder, CLASS_NAMES), data, attack)
    assert measured.attack_success_rate.count == measured.target_rate.count == 200
    classifier = ZeroShotClassifier(encoder, CLASS_NAMES)
    assert measured.clean_accuracy == evaluate(classifier, data.pixels, labels=data.labels).clean_accuracy


def test_what_cannot_be_measured(data, encoder):
    attack = make_attack("badnet", image_size=32, targets="red star")
    with pytest.raises(InputError, match="`target`: 'red star' is not among the 4 class names, nor declared open"):
        measure_attack(ZeroShotClassifier(encoder, CLASS_NAMES), data, attack)
    data.labels = None
    with pytest.raises(InputError, match="`data`: its pictures have no labels"):
        measure_attack(ZeroShotClassifier(encoder, CLASS_NAMES), data, attack)
