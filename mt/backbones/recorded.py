"""The backbones behind features or a saved model: described, loaded again, and refused if they differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mt.errors import InputError

if TYPE_CHECKING:
    from mt.backbones import Backbone
    from mt.cache.catalog import Entry


def described(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return, for each feature file, its backbone's name, fingerprint, width and description."""
    return [
        {
            "name": entry.backbone,
            "fingerprint": entry.fingerprints["backbone"],
            "dim": entry.dim,
            "description": entry.manifest.get("inputs", {}).get("backbone"),
        }
        for entry in entries
    ]


def load_described(about: Mapping[str, Any], weights: str | None, trusted: Collection[str] = ()) -> Backbone:
    """Load a described backbone: from a weights file, `random`, or as it was loaded then.

    `trusted` are the repositories whose code may be run.

    Raises:
        InputError: the loaded backbone has another fingerprint, or its embeddings were imported.
        WeightsError: its weights cannot be had.
    """
    from mt.backbones import load_backbone

    description = about["description"] or {}
    refuse_imported(about)
    named = weights_of(about, weights)
    backbone = load_backbone(
        about["name"],
        named[0] if named else None,
        image_size=description.get("image_size"),
        precision=description.get("precision", "float32"),
        trust_remote_code=trusted,
    )
    check_fingerprint(about, backbone.fingerprint)
    return backbone


def refuse_imported(about: Mapping[str, Any]) -> None:
    """Raise InputError for a backbone whose embeddings were imported: no network here can compute new ones."""
    if (about["description"] or {}).get("imported"):
        raise InputError(
            f"'{about['name']}' has no backbone here, because its embeddings were imported. Import the embeddings of "
            "the new cases, and name their dataset: mt cache import --help; mt predict MODEL --dataset NAME"
        )


def load_untrained(about: Mapping[str, Any]) -> Backbone:
    """Load a described backbone's network, whose weights come from elsewhere.

    Raises InputError where architecture, embedding or preprocessing differ from the described ones.
    """
    from mt.backbones import load_backbone

    description = about["description"] or {}
    backbone = load_backbone(about["name"], "random", image_size=description.get("image_size"))
    for part in ("architecture", "embedding", "preprocessing"):
        found = backbone.description[part]
        if part in description and description[part] != found:
            raise InputError(
                f"The model was fitted on '{about['name']}' with {part} {description[part]}, and this mt has {found}. "
                "Predict with the mt that saved it, or fit again."
            )
    return backbone


def weights_of(about: Mapping[str, Any], weights: str | None) -> list[str]:
    """Return the weights to name: those given, or random ones where they were random."""
    if weights:
        return [weights]
    return ["random"] if (about["description"] or {}).get("random_weights") else []


def check_fingerprint(about: Mapping[str, Any], found: str) -> None:
    """Raise InputError for a backbone that is not the described one."""
    if found != about["fingerprint"]:
        raise InputError(
            f"The model was fitted on '{about['name']}' with fingerprint {about['fingerprint'][:12]}, found "
            f"{found[:12]}: other weights, preprocessing or versions. Name its weights with --weights, or fit again."
        )
