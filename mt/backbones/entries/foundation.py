"""Foundation models by name: medical ones, and the general ones that they are compared with.

Each entry holds what its model card says: repository, keywords, embedding rule, preprocessing, licence, gate, paper.
`source` is that card, or the code that a fact was read from; `unchecked` names facts that no card and no code of the
authors confirmed.  Licences and gates were compared with those that rendeirolab/lazyslide-models lists.  Facts that no
source states are read from the model's own files when it is loaded.  Imports no torch.
"""

from __future__ import annotations

from dataclasses import replace

from mt.backbones.entries.spec import HF, OPEN_CLIP, BackboneSpec, Domain
from mt.backbones.layouts import Layout, resnet_children
from mt.backbones.preprocess import Preprocess
from mt.backbones.weights import Published

_CARD = "https://huggingface.co/"
_TRIDENT = "https://github.com/mahmoodlab/TRIDENT/blob/main/trident/patch_encoder_models/load.py"
_TIMM = "https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/"
_UNSAID = "as its publisher says"
_HALF = (0.5, 0.5, 0.5)
_SWIGLU = (("mlp_layer", "SwiGLUPacked"), ("act_layer", "SiLU"))
_BIOPTIMUS = Preprocess(224, 224, mean=(0.707223, 0.578729, 0.703617), std=(0.211883, 0.230117, 0.177517))
_UNI2 = (
    ("img_size", 224),
    ("patch_size", 14),
    ("depth", 24),
    ("num_heads", 24),
    ("init_values", 1e-5),
    ("embed_dim", 1536),
    ("mlp_ratio", 2.66667 * 2),
    ("no_embed_class", True),
    *_SWIGLU,
    ("reg_tokens", 8),
    ("dynamic_img_size", True),
)


def _entry(
    name: str, network: str, rule: str, dim: int | None, domain: Domain, licence: str, paper: str
) -> BackboneSpec:
    """Return an entry whose weights and preprocessing its library supplies."""
    repository = network.removeprefix(OPEN_CLIP).removeprefix("hf-hub:").removeprefix(HF)
    return BackboneSpec(name, network, rule, dim, None, None, licence, paper, _CARD + repository, domain=domain)


_PATHOLOGY = (
    replace(
        _entry(
            "uni",
            "hf-hub:MahmoodLab/UNI",
            "pooled",
            1024,
            "pathology",
            "CC-BY-NC-ND-4.0",
            "Chen et al., Nature Medicine 2024, doi:10.1038/s41591-024-02857-3",
        ),
        gated=True,
        keywords=(("init_values", 1e-5), ("dynamic_img_size", True)),
    ),
    replace(
        _entry(
            "uni2-h",
            "hf-hub:MahmoodLab/UNI2-h",
            "pooled",
            1536,
            "pathology",
            "CC-BY-NC-ND-4.0",
            "Chen et al., Nature Medicine 2024, doi:10.1038/s41591-024-02857-3",
        ),
        gated=True,
        keywords=_UNI2,
    ),
    replace(
        _entry(
            "virchow",
            "hf-hub:paige-ai/Virchow",
            "cls+mean",
            2560,
            "pathology",
            "Apache-2.0",
            "arXiv:2309.07778",
        ),
        gated=True,
        keywords=_SWIGLU,
    ),
    replace(
        _entry(
            "virchow2",
            "hf-hub:paige-ai/Virchow2",
            "cls+mean",
            2560,
            "pathology",
            "CC-BY-NC-ND-4.0",
            "arXiv:2408.00738",
        ),
        gated=True,
        keywords=_SWIGLU,
    ),
    replace(
        _entry(
            "h-optimus-0",
            "hf-hub:bioptimus/H-optimus-0",
            "pooled",
            1536,
            "pathology",
            "Apache-2.0",
            _UNSAID,
        ),
        gated=True,
        keywords=(("init_values", 1e-5),),
        preprocess=_BIOPTIMUS,
        size_mb=4540,
        unchecked=("gate",),
    ),
    replace(
        _entry(
            "h-optimus-1",
            "hf-hub:bioptimus/H-optimus-1",
            "pooled",
            1536,
            "pathology",
            "CC-BY-NC-ND-4.0",
            _UNSAID,
        ),
        gated=True,
        keywords=(("init_values", 1e-5),),
        preprocess=_BIOPTIMUS,
    ),
    replace(
        _entry(
            "h0-mini",
            "hf-hub:bioptimus/H0-mini",
            "cls",
            768,
            "pathology",
            "CC-BY-NC-ND-4.0",
            "arXiv:2501.16239",
        ),
        gated=True,
        keywords=_SWIGLU,
        unchecked=("width of the layers: derived from the published number of parameters",),
    ),
    replace(
        _entry(
            "gigapath",
            "hf-hub:prov-gigapath/prov-gigapath",
            "pooled",
            1536,
            "pathology",
            "Apache-2.0 with conditions",
            "Xu et al., Nature 2024, doi:10.1038/s41586-024-07441-w",
        ),
        gated=True,
        preprocess=Preprocess(256, 224, "bicubic"),
    ),
    _entry(
        "phikon",
        f"{HF}owkin/phikon",
        "cls",
        768,
        "pathology",
        "Owkin non-commercial",
        "Filiot et al., 2023, doi:10.1101/2023.07.21.23292757",
    ),
    replace(
        _entry(
            "phikon-v2",
            f"{HF}owkin/phikon-v2",
            "cls",
            1024,
            "pathology",
            "Owkin non-commercial",
            "arXiv:2409.09173",
        ),
        size_mb=1210,
        unchecked=("side of the position embeddings",),
    ),
    replace(
        _entry(
            "midnight",
            f"{HF}kaiko-ai/midnight",
            "cls+mean",
            3072,
            "pathology",
            "MIT",
            "arXiv:2504.05186",
        ),
        preprocess=Preprocess(224, 224, mean=_HALF, std=_HALF),
        unchecked=("gate", "side of the position embeddings"),
    ),
    *(
        replace(
            _entry(
                f"kaiko-{name}",
                f"hf-hub:1aurent/{network}.kaiko_ai_towards_large_pathology_fms",
                "pooled",
                dim,
                "pathology",
                "Kaiko non-commercial public licence",
                "Aben et al., 2024, arXiv:2404.15217",
            ),
            keywords=(("dynamic_img_size", True),),
            source=_TRIDENT,
        )
        for name, network, dim in (
            ("vits16", "vit_small_patch16_224", 384),
            ("vits8", "vit_small_patch8_224", 384),
            ("vitb16", "vit_base_patch16_224", 768),
            ("vitb8", "vit_base_patch8_224", 768),
            ("vitl14", "vit_large_patch14_reg4_dinov2", 1024),
        )
    ),
)

_MEDICAL = (
    replace(
        _entry(
            "rad-dino",
            f"{HF}microsoft/rad-dino",
            "cls",
            768,
            "radiology",
            "MIT",
            "arXiv:2401.10815",
        ),
        size_mb=346,
    ),
    replace(
        _entry(
            "medsiglip",
            f"{HF}google/medsiglip-448",
            "pooled",
            1152,
            "other",
            "Health AI Developer Foundations terms",
            "Sellergren et al., 2025, arXiv:2507.05201",
        ),
        gated=True,
    ),
    replace(
        _entry(
            "biomedclip",
            f"{OPEN_CLIP}hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
            "pooled",
            512,
            "other",
            "MIT",
            "arXiv:2303.00915",
        ),
        size_mb=786,
    ),
)

_GENERAL = (
    *(
        replace(
            _entry(
                f"dinov2-{name}",
                f"vit_{network}_dinov2.lvd142m",
                "pooled",
                dim,
                "general",
                "Apache-2.0",
                "Oquab et al., TMLR 2024, arXiv:2304.07193",
            ),
            source=f"{_TIMM}vision_transformer.py",
        )
        for name, network, dim in (
            ("vitb14", "base_patch14", 768),
            ("vitl14", "large_patch14", 1024),
            ("vits14-reg4", "small_patch14_reg4", 384),
            ("vitb14-reg4", "base_patch14_reg4", 768),
            ("vitl14-reg4", "large_patch14_reg4", 1024),
        )
    ),
    *(
        replace(
            _entry(
                f"dinov3-{name}",
                f"vit_{network}_patch16_dinov3.lvd1689m",
                "pooled",
                dim,
                "general",
                "DINOv3 licence",
                "arXiv:2508.10104",
            ),
            source=f"{_TIMM}eva.py",
        )
        for name, network, dim in (("vits16", "small", 384), ("vitb16", "base", 768), ("vitl16", "large", 1024))
    ),
    *(
        replace(
            _entry(
                f"clip-{name}",
                f"{OPEN_CLIP}{network}-quickgelu/openai",
                "pooled",
                dim,
                "general",
                "MIT",
                "Radford et al., ICML 2021, arXiv:2103.00020",
            ),
            source="https://github.com/openai/CLIP",
        )
        for name, network, dim in (
            ("vitb32", "ViT-B-32", 512),
            ("vitb16", "ViT-B-16", 512),
            ("vitl14", "ViT-L-14", 768),
        )
    ),
    *(
        _entry(
            f"siglip2-{name}",
            f"{HF}google/siglip2-{network}-384",
            "pooled",
            dim,
            "general",
            "Apache-2.0",
            "Tschannen et al., 2025, arXiv:2502.14786",
        )
        for name, network, dim in (
            ("base", "base-patch16", 768),
            ("large", "large-patch16", 1024),
            ("so400m", "so400m-patch14", 1152),
        )
    ),
)

# Weights files that their publishers hand out on request, for networks of our own code.
_FILES = (
    *(
        BackboneSpec(
            name,
            "vit_large_patch16",
            "normed mean",
            1024,
            Preprocess(256, 224, "bicubic"),
            Published(
                f"{_CARD}YukunZhou/{file}",
                (Layout(nesting=("model",), drop=("decoder_", "mask_token", "head.")),),
                f"{file}.pth",
                by_hand="accept its terms there and download it",
            ),
            "CC-BY-NC-4.0",
            "Zhou et al., Nature 2023, doi:10.1038/s41586-023-06555-x",
            "https://github.com/rmaphoh/RETFound_MAE",
            16,
            "other",
            gated=True,
        )
        for name, file in (("retfound", "RETFound_mae_natureCFP"), ("retfound-oct", "RETFound_mae_natureOCT"))
    ),
    BackboneSpec(
        "radimagenet-resnet50",
        "resnet50",
        "pooled",
        2048,
        Preprocess(224, 224, mean=_HALF, std=_HALF, squash=True),
        Published(
            "https://github.com/BMEII-AI/RadImageNet",
            (Layout(prefix="backbone.", rename=resnet_children), Layout(rename=resnet_children, drop=("fc.",))),
            "RadImageNet-ResNet50.pt",
            by_hand="follow its link to the pretrained models, take PyTorch's ResNet50.pt",
        ),
        "MIT",
        "Mei et al., Radiology: Artificial Intelligence 2022, doi:10.1148/ryai.210315",
        "https://github.com/BMEII-AI/RadImageNet/blob/main/pytorch_example.ipynb",
        None,
        "radiology",
        unchecked=(
            "licence of the weights: MIT is the repository's",
            "resize: its example interpolates without antialiasing",
        ),
    ),
)

FOUNDATION: dict[str, BackboneSpec] = {spec.name: spec for spec in (*_GENERAL, *_PATHOLOGY, *_MEDICAL, *_FILES)}

# Models that no loader here can build, and what they need instead.
OWN_PACKAGE = {
    "conch": "needs its own package (https://github.com/mahmoodlab/CONCH) and gated weights "
    "(https://huggingface.co/MahmoodLab/CONCH): install the one, accept the terms of the other and set HF_TOKEN.",
}
