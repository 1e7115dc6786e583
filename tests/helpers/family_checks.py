"""A whole removal on a tiny model of one family: what the table of families is made of, and the test of it."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import ModelCard, hf_hub_download
from loopback_cards import validate
from loopback_hub import OWNER, LoopbackHub
from peft import PeftModel
from PIL import Image
from tiny import CLASS_NAMES
from tiny_families import CONTEXT, PATCH, SIDE, save_family
from tiny_plan import pictures, removal_config

from hf_invertune.data.loading import load_images
from hf_invertune.models.loading import LoadedModel, load_model
from hf_invertune.remover import BackdoorRemover


TEXTS = ["a red circle", "a good blue square", "a ring"]
EXACT = 1e-6


def photographs() -> list[Image.Image]:
    """Three noisy pictures, larger than any model's own."""
    values = torch.randint(256, (3, 50, 50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    return [Image.fromarray(picture.numpy()) for picture in values]


@torch.no_grad()
def called_directly(folder: Path, name: str, **text: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit embeddings of [`photographs`] and [`TEXTS`] by the class `name` and its processor, as its own documents say."""
    model = getattr(transformers, name).from_pretrained(folder, dtype="float32")
    processor = transformers.AutoProcessor.from_pretrained(folder)
    settings: dict[str, Any] = {"padding": True}
    if "Siglip" in name:
        settings = {"padding": "max_length", "max_length": CONTEXT, "truncation": True}
    if name == "Siglip2Model":
        settings |= {"max_num_patches": (SIDE // PATCH) ** 2, "patch_size": PATCH}
    inputs = processor(images=photographs(), text=TEXTS, return_tensors="pt", **{**settings, **text})
    outputs = (model.clip if name == "CLIPSegForImageSegmentation" else model)(**inputs)
    return outputs.image_embeds, outputs.text_embeds


def gap(loaded: LoadedModel, direct: tuple[torch.Tensor, torch.Tensor]) -> float:
    """The largest difference between our embeddings and those of [`called_directly`]."""
    pixels = load_images(photographs(), loaded.processor).pixels
    ours = loaded.encoder.embed_pixels(pixels), loaded.encoder.embed_texts(TEXTS)
    return max(float((one - other).abs().max()) for one, other in zip(ours, direct, strict=True))


def check_family(folder: Path, name: str, origin: str | Path | None = None) -> tuple[dict[str, Any], BackdoorRemover]:
    """Scan and clean a tiny model of the class `name`, save model and adapter in `folder`, and load both again.

    Args:
        folder (`Path`): where to; the model as it comes is made in `model/` there.
        name (`str`): one of [`FAMILIES`].
        origin (`str` or `Path`, *optional*): where to load it from, when it was put elsewhere.

    Returns:
        What was measured, each a number or whether it is so; and the remover, whose result can be pushed.
    """
    if origin is None:
        save_family(folder / "model", name)
    remover = BackdoorRemover.from_pretrained(origin or folder / "model", device="cpu")
    before = {key: value.clone() for key, value in remover.model.state_dict().items()}
    figures: dict[str, Any] = {"embeddings": gap(remover.source, called_directly(folder / "model", name))}
    result = remover.remove(pictures(32), CLASS_NAMES, config=removal_config())
    changed = [key for key, value in result.model.state_dict().items() if not torch.equal(value, before[key])]
    figures |= {
        "class": type(result.model).__name__,
        "scan": str(result.verdict.value),
        "outcome": result.outcome,
        "critical_layers": len(result.report.removal.critical.layers),
        "only_the_image_tower_changed": bool(changed) and all("vision_model." in key for key in changed),
    }
    result.save_pretrained(folder / "merged")
    result.save_adapter(folder / "adapter")
    reloaded = load_model(folder / "merged", device="cpu")
    figures["saved_and_loaded_equal"] = reloaded.digest() == result.report.sha256_after == result.cleaned.digest()
    figures["merged_embeddings"] = gap(reloaded, called_directly(folder / "merged", name))
    base = getattr(transformers, name).from_pretrained(folder / "model", dtype="float32")
    tuned = reloaded.holding(PeftModel.from_pretrained(base, folder / "adapter").eval())
    pixels = load_images(photographs(), reloaded.processor).pixels
    apart, merged = tuned.encoder.embed_pixels(pixels), reloaded.encoder.embed_pixels(pixels)
    figures["adapter"] = float((apart - merged).abs().max())
    return figures, remover


def check_on_the_hub(hub: LoopbackHub, folder: Path, name: str) -> dict[str, Any]:
    """[`check_family`] of a model on the Hub, whose cleaned form and adapter are pushed, pulled and used by their cards."""
    save_family(folder / "model", name)
    hub.put("org/suspicious", {path.name: path.read_bytes() for path in (folder / "model").iterdir()})
    figures, remover = check_family(folder, name, "org/suspicious")
    remover.push_to_hub("org/clean", token=OWNER, force=True)
    remover.push_to_hub("org/adapter", token=OWNER, force=True, adapter=True)
    pulled = load_model("org/clean", device="cpu")
    figures["pulled_equal"] = pulled.digest() == remover.source.digest()
    cards = [ModelCard.load(hf_hub_download(repo_id, "README.md")) for repo_id in ("org/clean", "org/adapter")]
    figures["cards_valid"] = all(validate(str(card)) == ([], []) for card in cards)
    photographs()[0].save(folder / "picture.png")
    figures["cards_run"] = max(card_gap(card, folder, pulled) for card in cards)
    return figures


@torch.no_grad()
def card_gap(card: ModelCard, folder: Path, loaded: LoadedModel) -> float:
    """Run a card's snippet in `folder`; the largest difference from what `loaded` gives, in logits or masks."""
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    scope: dict[str, Any] = {}
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "card", "exec"), scope)
    names, encoder = scope["names"], loaded.encoder
    pixels = load_images([Image.open(folder / "picture.png")], loaded.processor).pixels
    ours = encoder.embed_pixels(pixels) @ encoder.embed_texts([encoder.templates[0].format(name) for name in names]).T
    if "classify" in scope:
        scores = (encoder.scale * ours[0]).softmax(-1)
        found = scope["classify"](str(folder / "picture.png"), names, hypothesis_template=encoder.templates[0])
        return max(abs(float(scores[names.index(one["label"])]) - one["score"]) for one in found)
    if "masks" in scope:
        assert scope["masks"].shape == (len(names), *pixels.shape[-2:])
        inputs = scope["processor"](text=scope["texts"], return_tensors="pt", padding=True)
        theirs = scope["model"].clip.get_text_features(**inputs).pooler_output
        return float((torch.nn.functional.normalize(theirs, dim=-1) - encoder.embed_texts(scope["texts"])).abs().max())
    assert printed.getvalue().strip() == names[int(ours.argmax())]
    outputs = scope["model"](**scope["inputs"])
    return float((outputs.image_embeds @ outputs.text_embeds.T - ours).abs().max())
