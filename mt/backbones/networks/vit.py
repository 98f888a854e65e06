"""The vision transformers of DINO and DINOv2, with their embedding rules and resampling of positions.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers" (ICCV 2021), `vision_transformer.py` and
`eval_linear.py` of the official code; Oquab et al., "DINOv2" (TMLR 2024).  Parameter names are the official ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from mt.backbones.networks.tokens import by_rule
from mt.errors import InputError

EPSILON = 1e-6
Rule = Literal["cls4", "cls1", "cls+patches", "mean", "cls+mean", "normed mean"]


@dataclass(frozen=True)
class VitConfig:
    """The sizes of one transformer; the published position embeddings are a grid of `side` x `side` patches.

    `offset` is what DINO's code adds to the number of patches per side when it resamples positions; MAE's adds 0.
    """

    patch: int
    width: int
    heads: int
    side: int
    depth: int = 12
    layer_scale: bool = False
    positions_in_float32: bool = False
    offset: float = 0.1


class Attention(nn.Module):
    """Multi-head self-attention over tokens (N, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images, tokens, width = x.shape
        q, k, v = self.qkv(x).view(images, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(images, tokens, width)
        out: torch.Tensor = self.proj(mixed)
        return out


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them; the hidden layer is four times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class LayerScale(nn.Module):
    """A learned factor per channel (DINOv2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class TransformerBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=EPSILON)
        self.attn = Attention(config.width, config.heads)
        self.ls1 = LayerScale(config.width) if config.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(config.width, eps=EPSILON)
        self.mlp = Mlp(config.width)
        self.ls2 = LayerScale(config.width) if config.layer_scale else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: torch.Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class PatchEmbed(nn.Module):
    """Non-overlapping patches, each projected to a token: (N, 3, H, W) -> (N, patches, width)."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, config.patch, stride=config.patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class VisionTransformer(nn.Module):
    """Images (N, 3, H, W), sides multiples of the patch, -> embeddings (N, dim), by the embedding rule.

    `cls4`: the class tokens of the last four blocks, oldest first, each through the final norm (DINO's linear
    evaluation of ViT-S).  `cls1`: the last one alone (DINO's k-NN, DINOv2).  `cls+patches`: the last class token and
    the mean patch token, interleaved channel by channel (DINO's linear evaluation of ViT-B, which concatenates along
    a new last axis and flattens).  `mean`: the mean patch token; `cls+mean`: the last class token, then the mean.
    `normed mean`: the mean patch token before the final norm, normalised without learned factors (RETFound's notebook
    of latent features, whose checkpoints lack the norm after MAE's pooling).
    """

    def __init__(self, config: VitConfig, rule: Rule) -> None:
        super().__init__()
        self.config = config
        self.rule = rule
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.side**2, config.width))
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        if height % self.config.patch or width % self.config.patch:
            raise InputError(
                f"This network cuts images into patches of {self.config.patch} pixels: "
                f"expected sides that are multiples of it, got {height} x {width}."
            )
        x = self.patch_embed(images)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self._positions(height, width)
        class_tokens = []
        for block in self.blocks:
            x = block(x)
            class_tokens.append(x[:, 0])
        if self.rule == "cls4":
            return torch.cat([self.norm(token) for token in class_tokens[-4:]], dim=1)
        if self.rule == "cls1":
            last: torch.Tensor = self.norm(class_tokens[-1])
            return last
        if self.rule == "normed mean":
            return F.layer_norm(x[:, 1:].mean(dim=1), (self.config.width,), eps=EPSILON)
        tokens = self.norm(x)
        if self.rule in ("mean", "cls+mean"):
            return by_rule(tokens, self.rule, 1)
        return torch.stack((tokens[:, 0], tokens[:, 1:].mean(dim=1)), dim=-1).flatten(1)

    def _positions(self, height: int, width: int) -> torch.Tensor:
        """Return the position embeddings for this image size, resampled as the official code does.

        Bicubic, no antialiasing, and sampled at `scale_factor = (n + 0.1) / side`, which is not `n / side`
        (facebookresearch/dino issue 8; MAE resamples to `n`).  DINOv2's code does this in float32 whatever the
        network's precision.
        """
        side, rows, columns = self.config.side, height // self.config.patch, width // self.config.patch
        if rows == columns == side:
            return self.pos_embed
        positions = self.pos_embed.float() if self.config.positions_in_float32 else self.pos_embed
        grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        if self.config.offset:
            scale = (rows + self.config.offset) / side, (columns + self.config.offset) / side
            grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        else:
            grid = F.interpolate(grid, size=(rows, columns), mode="bicubic")
        patches = grid.permute(0, 2, 3, 1).flatten(1, 2)
        return torch.cat((positions[:, :1], patches), dim=1).to(self.pos_embed.dtype)
