"""CLIP with a ResNet for its image tower (arXiv 2103.00020, section 2.4), by the names that open_clip gives its parts."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu, scaled_dot_product_attention
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPOutput


class ResNetCLIPConfig(PreTrainedConfig):
    """Settings of a [`ResNetCLIP`].

    Attributes:
        text_config (`CLIPTextConfig`): the text tower.
        stages (`tuple[int, ...]`): blocks of each of the four stages.
        width (`int`): channels after the stem.
        heads (`int`): of the attention that pools.
        image_size (`int`): height and width of the pictures, a multiple of 32.
        projection_dim (`int`): dimensions of the embeddings.
        open_clip (`dict`): what the model came with, see [`read_open_clip`].
    """

    model_type = "open_clip_resnet"
    sub_configs_defaults = {"text_config": CLIPTextConfig}  # type: ignore[dict-item]

    text_config: dict[str, Any] | CLIPTextConfig | None = None
    stages: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    heads: int = 32
    image_size: int = 224
    projection_dim: int = 1024
    open_clip: dict[str, Any] | None = None


class StillBatchNorm(nn.BatchNorm2d):
    """Batch normalisation that keeps to the statistics that it has, in training too."""

    def train(self, mode: bool = True) -> "StillBatchNorm":
        return super().train(False)


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut; an average pool takes the place of strides."""

    def __init__(self, entering: int, width: int, stride: int):
        super().__init__()
        leaving = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(entering, width, 1, bias=False), StillBatchNorm(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), StillBatchNorm(width)
        self.avgpool = nn.AvgPool2d(stride)
        self.conv3, self.bn3 = nn.Conv2d(width, leaving, 1, bias=False), StillBatchNorm(leaving)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or entering != leaving:
            parts = (nn.AvgPool2d(stride), nn.Conv2d(entering, leaving, 1, bias=False), StillBatchNorm(leaving))
            self.downsample = nn.Sequential(OrderedDict(zip(("-1", "0", "1"), parts, strict=True)))

    def forward(self, before: Tensor) -> Tensor:
        """N x C x H x W, before the last rectifier, which belongs to whoever reads it."""
        inner = relu(self.bn1(self.conv1(before)))
        inner = self.avgpool(relu(self.bn2(self.conv2(inner))))
        return self.bn3(self.conv3(inner)) + self.downsample(before)


class AttentionPool(nn.Module):
    """Attention from the mean of all places to all places, and to itself."""

    def __init__(self, places: int, width: int, heads: int, leaving: int):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(places + 1, width) / width**0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, leaving)

    def forward(self, maps: Tensor) -> Tensor:
        """N x C x H x W to N x D."""
        places = maps.flatten(2).transpose(1, 2)
        places = torch.cat([places.mean(1, keepdim=True), places], 1) + self.positional_embedding
        query, key, value = (
            projection(one).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, one in ((self.q_proj, places[:, :1]), (self.k_proj, places), (self.v_proj, places))
        )
        return self.c_proj(scaled_dot_product_attention(query, key, value).flatten(1))


class ResNetTower(nn.Module):
    """The image tower: a stem of three convolutions, four stages of bottlenecks, attention that pools.

    Its layers are the bottlenecks, in order, and the pool.
    """

    def __init__(self, config: ResNetCLIPConfig):
        super().__init__()
        width, half = config.width, config.width // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False), StillBatchNorm(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), StillBatchNorm(half)
        self.conv3, self.bn3 = nn.Conv2d(half, width, 3, padding=1, bias=False), StillBatchNorm(width)
        self.avgpool = nn.AvgPool2d(2)
        entering = width
        for stage, blocks in enumerate(config.stages):
            inner = width * 2**stage
            strides = [2 if stage else 1] + [1] * (blocks - 1)
            enterings = [entering] + [4 * inner] * (blocks - 1)
            layer = [Bottleneck(wide, inner, stride) for wide, stride in zip(enterings, strides, strict=True)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
            entering = 4 * inner
        self.attnpool = AttentionPool((config.image_size // 32) ** 2, entering, config.heads, config.projection_dim)

    @property
    def layers(self) -> dict[str, nn.Module]:
        """The layers by their names in the tower."""
        blocks = {
            f"layer{stage}.{place}": block
            for stage in (1, 2, 3, 4)
            for place, block in enumerate(getattr(self, f"layer{stage}"))
        }
        return {**blocks, "attnpool": self.attnpool}

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = False) -> BaseModelOutputWithPooling:
        """The maps after the last stage (N x places x C), the embeddings (N x D), and on demand the hidden states.

        These are the maps after the stem, then what each layer gives: the pool N x 1 x D, a bottleneck N x places x C,
        before its last rectifier, since behind it a neuron that is silent on clean pictures has nothing to compare with.
        """
        maps = pixel_values
        for convolution, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            maps = relu(norm(convolution(maps)))
        maps = self.avgpool(maps)
        hidden, (*blocks, pool) = [maps], self.layers.values()
        for block in blocks:
            sums = block(maps)
            hidden.append(sums)
            maps = relu(sums)
        embeddings = pool(maps)
        states = (*(sums.flatten(2).transpose(1, 2) for sums in hidden), embeddings.unsqueeze(1))
        return BaseModelOutputWithPooling(
            last_hidden_state=maps.flatten(2).transpose(1, 2),
            pooler_output=embeddings,
            hidden_states=states if output_hidden_states else None,
        )


class ResNetCLIP(PreTrainedModel):
    """CLIP with a [`ResNetTower`] and transformers' own text tower; called as a `CLIPModel` is."""

    config_class = ResNetCLIPConfig
    main_input_name = "pixel_values"
    _supports_sdpa = True

    def __init__(self, config: ResNetCLIPConfig):
        super().__init__(config)
        text_config: Any = config.text_config
        self.visual = ResNetTower(config)
        self.text_model = CLIPTextModel._from_config(text_config)
        self.text_projection = nn.Linear(text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))
        self.post_init()

    def get_image_features(self, pixel_values: Tensor, output_hidden_states: bool = False) -> Any:
        """The output of the image tower; `pooler_output` are the embeddings."""
        return self.visual(pixel_values, output_hidden_states)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        """The output of the text tower; `pooler_output` are the embeddings."""
        output: Any = self.text_model(input_ids=input_ids, attention_mask=attention_mask)
        output.pooler_output = self.text_projection(output.pooler_output)
        return output

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> CLIPOutput:
        """Unit embeddings of pictures and texts, and how alike they are."""
        vision = self.get_image_features(pixel_values, output_hidden_states)
        text = self.get_text_features(input_ids, attention_mask)
        images, texts = (normalize(features, dim=-1) for features in (vision.pooler_output, text.pooler_output))
        logits = self.logit_scale.exp() * images @ texts.T
        return CLIPOutput(
            logits_per_image=logits,
            logits_per_text=logits.T,
            image_embeds=images,
            text_embeds=texts,
            text_model_output=text,
            vision_model_output=vision,
        )
