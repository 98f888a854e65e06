"""Augmentation fits the kind of image, and depends on seed, epoch and sample alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mt.backbones.preprocess import Preprocess
from mt.errors import InputError
from mt.fuse.end_to_end.augment import AUGMENTATIONS, BY_KIND, augmentation_for
from mt.fuse.end_to_end.request import Machine, Settings, check_settings

NORMAL = Preprocess(None, 16)


def _seen(kind: str, image: np.ndarray, n: int = 200) -> torch.Tensor:
    """Return what training sees of one image in n epochs, (n, 3, S, S)."""
    augmentation, found = augmentation_for("auto", kind), []
    for epoch in range(n):
        moves, pixels = augmentation.draw(0, epoch, [7]), image[None].copy()
        moves.turn(pixels)
        found.append(moves.warp(NORMAL.normalize(torch.from_numpy(pixels))))
    return torch.cat(found)


def test_patches_are_flipped_and_turned_by_right_angles_and_no_pixel_changes() -> None:
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    turned = [np.rot90(image, k) for k in range(4)]
    eight = [NORMAL.normalize(torch.from_numpy(np.stack([view, view[:, ::-1]]))) for view in turned]
    found = {view.numpy().tobytes() for view in _seen("patch", image)}
    assert found == {view.contiguous().numpy().tobytes() for pair in eight for view in pair}


@pytest.mark.parametrize("kind", ["xray", "scan", "oct", "unknown", "something new"])
def test_what_has_a_left_and_a_right_is_moved_mildly_and_never_flipped(kind: str) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8, :8] = 255  # the heart's side
    seen = _seen(kind, image).mean(dim=1)
    corners = torch.stack([seen[:, :6, :6], seen[:, :6, -6:], seen[:, -6:, :6], seen[:, -6:, -6:]]).mean(dim=(2, 3))
    assert (corners.argmax(dim=0) == 0).all()
    assert len(torch.unique(seen, dim=0)) == len(seen)


def test_photographs_are_flipped_sideways_but_not_upside_down() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8, :8] = 255
    seen = _seen("photo", image).mean(dim=1)
    left = (seen[:, :6, :6].mean(dim=(1, 2)) > seen[:, :6, -6:].mean(dim=(1, 2))).double().mean()
    assert 0.3 < left < 0.7
    assert (seen[:, :6].mean(dim=(1, 2)) > seen[:, -6:].mean(dim=(1, 2))).all()


def test_geometric_moves_change_no_brightness() -> None:
    even = torch.full((2, 3, 16, 16), 0.7)
    step = torch.cat([even[..., :8], -even[..., 8:]], dim=-1)
    moves, mild = (AUGMENTATIONS[name].draw(0, 0, [0, 1]) for name in ("geometric", "mild"))
    torch.testing.assert_close(moves.warp(even), even)
    assert not torch.allclose(mild.warp(even), even, atol=0.01)
    assert not torch.allclose(moves.warp(step), step, atol=0.01)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_moves_depend_on_seed_epoch_and_sample_alone(name: str) -> None:
    augmentation = AUGMENTATIONS[name]
    one = augmentation.draw(3, 5, [10, 11, 12]).drawn
    np.testing.assert_array_equal(one[1:2], augmentation.draw(3, 5, [11]).drawn)
    for other in (augmentation.draw(4, 5, [11]), augmentation.draw(3, 6, [11]), augmentation.draw(3, 5, [13])):
        assert not np.allclose(one[1], other.drawn[0])


def test_none_changes_nothing() -> None:
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(AUGMENTATIONS["none"].draw(0, 0, [0, 1]).warp(images), images)


def test_kinds_name_known_augmentations_and_an_unknown_one_is_said() -> None:
    assert set(BY_KIND.values()) <= set(AUGMENTATIONS)
    assert augmentation_for("none", "patch") is AUGMENTATIONS["none"]
    with pytest.raises(InputError, match="--augment takes one of auto, none, mild"):
        check_settings(Settings(augment="strong"), Machine())
