"""Tiny models by the names, the files and the mathematics of open_clip, written down anew with torch's own modules."""

import json
import os
import shutil
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import WORDS
from torch import nn
from torch.nn.functional import gelu
from transformers import CLIPTokenizer

from hf_invertune.lab.zoo.small_clip import make_tokenizer
from hf_invertune.models.open_clip.resnet import ResNetCLIPConfig, ResNetTower


MODEL = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "mlp_ratio": 2.0},
    "text_cfg": {"context_length": 24, "width": 32, "heads": 2, "layers": 2, "mlp_ratio": 2.0},
}
RESNET = {"layers": [1, 2, 1, 1], "width": 8, "head_width": 32, "patch_size": ..., "mlp_ratio": ...}
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear", "resize_mode": "shortest"}


def golden(name, folder):
    """A copy, in `folder`, of a model that open_clip itself wrote, and what that embeds of what.

    They lie in the folder that the environment names, made once; where there is no tokenizer, one of 90 ids is added.
    """
    origin = Path(os.environ.get("HF_INVERTUNE_OPEN_CLIP", "")) / name
    if not (origin / "golden.safetensors").is_file():
        pytest.skip("HF_INVERTUNE_OPEN_CLIP names no folder with models of open_clip")
    folder.mkdir()
    for path in origin.iterdir():
        shutil.copyfile(path, folder / path.name)
    if not (folder / "tokenizer.json").is_file():
        entries = [*map(str, range(88)), "<|startoftext|>", "<|endoftext|>"]
        CLIPTokenizer({entry: index for index, entry in enumerate(entries)}, []).save_pretrained(folder)
    return folder, load_file(folder / "golden.safetensors")


class Block(nn.Module):
    def __init__(self, width, heads, ratio, quick):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2, self.quick = nn.LayerNorm(width), nn.LayerNorm(width), quick
        hidden = int(width * ratio)
        self.mlp = nn.Sequential(OrderedDict(c_fc=nn.Linear(width, hidden), c_proj=nn.Linear(hidden, width)))

    def forward(self, x, mask=None):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = self.mlp.c_fc(self.ln_2(x))
        return x + self.mlp.c_proj(y * torch.sigmoid(1.702 * y) if self.quick else gelu(y))


def blocks(layers, *arguments):
    tower = nn.Module()
    tower.resblocks = nn.ModuleList(Block(*arguments) for _ in range(layers))
    return tower


class Visual(nn.Module):
    def __init__(self, cfg, quick, out):
        super().__init__()
        width, patch = cfg["width"], cfg["patch_size"]
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((cfg["image_size"] // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = blocks(cfg["layers"], width, width // cfg["head_width"], cfg["mlp_ratio"], quick)
        self.proj = nn.Parameter(torch.randn(width, out))

    def forward(self, pixels):
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer.resblocks:
            x = block(x)
        return self.ln_post(x[:, 0]) @ self.proj


def resnet(cfg, out):
    """Ours, which its own tests hold against open_clip's, with statistics as after a training."""
    heads = 32 * cfg["width"] // cfg["head_width"]
    settings = {"stages": cfg["layers"], "width": cfg["width"], "image_size": cfg["image_size"], "heads": heads}
    tower = ResNetTower(ResNetCLIPConfig(projection_dim=out, **settings))
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.num_batches_tracked += 7
    return tower


class OpenCLIP(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        text, quick = cfg["text_cfg"], cfg.get("quick_gelu", False)
        vision, out = cfg["vision_cfg"], cfg["embed_dim"]
        self.visual = resnet(vision, out) if isinstance(vision["layers"], list) else Visual(vision, quick, out)
        self.token_embedding = nn.Embedding(text["vocab_size"], text["width"])
        self.positional_embedding = nn.Parameter(torch.randn(text["context_length"], text["width"]))
        self.transformer = blocks(text["layers"], text["width"], text["heads"], text["mlp_ratio"], quick)
        self.ln_final = nn.LayerNorm(text["width"])
        self.text_projection = nn.Parameter(torch.randn(text["width"], cfg["embed_dim"]))
        self.logit_scale = nn.Parameter(torch.tensor(2.5))
        for parameter in self.parameters():  # a layer norm of ones would hide that two are exchanged
            parameter.data += 0.1 * torch.randn_like(parameter)

    def encode_image(self, pixels):
        return self.visual(pixels)

    def encode_text(self, ids):
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)
        for block in self.transformer.resblocks:
            x = block(x, mask)
        return self.ln_final(x)[torch.arange(len(ids)), ids.argmax(-1)] @ self.text_projection


def config_of(changes=(), vision=(), text=(), preprocess=()):
    """The whole of an open_clip_config.json; a change to `...` takes a key away."""
    tokenizer = make_tokenizer(WORDS, 24)
    model = {
        **MODEL,
        "vision_cfg": {**MODEL["vision_cfg"], **dict(vision)},
        "text_cfg": {**MODEL["text_cfg"], "vocab_size": len(tokenizer), **dict(text)},
        **dict(changes),
    }
    parts = [model, model["vision_cfg"], model["text_cfg"], {**PREPROCESS, **dict(preprocess)}]
    for part in parts:
        for key in [key for key, value in part.items() if value is ...]:
            del part[key]
    return {"model_cfg": model, "preprocess_cfg": parts[-1]}


def save_open_clip(folder, config=None, file="open_clip_model.safetensors", model=None, tokenizer=True):
    """Write a tiny model as open_clip does; the model."""
    config = config or config_of()
    torch.manual_seed(0)
    model = model or OpenCLIP(config["model_cfg"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1))
    save_file(model.state_dict(), folder / file, metadata={"format": "pt"})
    if tokenizer:
        make_tokenizer(WORDS, 24).save_pretrained(folder)
    return model.eval()
