"""What a registry says about one backbone, and which loader a name belongs to.  Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mt.backbones.preprocess import Preprocess
from mt.backbones.weights import Published

TIMM, HF, OPEN_CLIP, MODULE = "timm:", "hf:", "open_clip:", "module:"
Domain = Literal["general", "pathology", "radiology", "other"]
DOMAINS: tuple[Domain, ...] = ("general", "pathology", "radiology", "other")
# What loads a network that is not listed, by the beginning of its name, and where that library is from.
SOURCES = {
    TIMM: "https://github.com/huggingface/pytorch-image-models",
    HF: "https://github.com/huggingface/transformers",
    OPEN_CLIP: "https://github.com/mlfoundations/open_clip",
    MODULE: "the user's own",
}


@dataclass(frozen=True)
class BackboneSpec:
    """One backbone: network, embedding rule, weights, preprocessing, licence of the weights, and where it is from.

    `network` is a name that `networks.build` or a loader of `hubs` knows.  `embedding` is a rule: of `networks.vit` for
    our own transformers, of `embeddings.RULES` otherwise.  `dim` and `preprocess` are None for networks of other
    libraries, which report them when they are built.  Image sizes must be multiples of `patch`, in pixels.  timm
    builds the network with `keywords`, in which names of layers stand for the layers.  `gated` weights require
    accepted terms; `size_mb` is their download in MB.  `views` names the views whose embeddings are averaged.
    `unchecked` names facts that no model card and no code of the authors confirmed.
    """

    name: str
    network: str
    embedding: str
    dim: int | None
    preprocess: Preprocess | None
    weights: Published | None
    licence: str
    paper: str
    source: str
    patch: int | None = None
    domain: Domain = "general"
    keywords: tuple[tuple[str, Any], ...] = ()
    gated: bool = False
    size_mb: int | None = None
    views: str | None = None
    unchecked: tuple[str, ...] = ()

    @property
    def non_commercial(self) -> bool:
        """Whether the licence of the weights forbids commercial use."""
        return "NC" in self.licence or "non-commercial" in self.licence

    @property
    def repository(self) -> str | None:
        """ORG/NAME of the hub that the weights are in, None where they are elsewhere."""
        for prefix in ("hf-hub:", f"{OPEN_CLIP}hf-hub:", HF):
            place = self.network.removeprefix(prefix).partition("@")[0]
            if place != self.network and place.count("/") == 1 and not place.startswith((".", "/", "~")):
                return place
        return None

    @property
    def code_place(self) -> str | None:
        """The repository or folder of a transformers model, by which its own code can be allowed."""
        place = self.network.removeprefix(HF)
        return None if place == self.network else place.partition("@")[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines to show whoever uses the backbone."""
        if not self.non_commercial:
            return ()
        return (f"The weights of '{self.name}' are licensed {self.licence}: no commercial use.",)


def loader_of(name: str) -> str | None:
    """Return which loader's prefix a name begins with, None for none."""
    return next((one for one in SOURCES if name.startswith(one) and len(name) > len(one)), None)
