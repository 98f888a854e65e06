"""The backbones of one command: identified from an earlier run, and loaded once if they must compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mt.backbones.embeddings import with_rule, with_views
from mt.backbones.load import find_spec, load_backbone, resolve_backbone
from mt.cache.content import ContentIndex
from mt.errors import InputError
from mt.featurize import plan
from mt.featurize.request import FeaturizeRequest
from mt.terminal import progress

if TYPE_CHECKING:
    from mt.backbones.load import Backbone


class LoadedBackbones:
    """The backbones of a request by name.  weights: those that the request names, by model."""

    def __init__(self, request: FeaturizeRequest, index: ContentIndex) -> None:
        asked = plan.weights_by_model(plan.unique(request.models, find_spec), request.weights)
        self.weights = {named: asked[model] for model in asked for named in _named(model, request)}
        self.models = plan.unique(list(self.weights), find_spec)
        self._trusted = request.trust_remote_code
        _check_trusted(self._trusted, self.models)
        self._image_size, self._compute, self._index = request.image_size, request.compute, index
        self._loaded: dict[str, Backbone] = {}

    def identity(self, model: str) -> plan.Identity:
        """Return what identifies the backbone's embeddings, without torch if an earlier run remembered it."""
        known = resolve_backbone(
            model, self.weights[model], self._image_size, precision=self._compute.precision, index=self._index
        )
        return known or self.load(model)

    def load(self, model: str) -> Backbone:
        """Return the backbone on the request's device; on the CPU if workers compute, which load their own."""
        if model not in self._loaded:
            from mt.system.device import device_names, pick_device

            self._loaded[model] = load_backbone(
                model,
                self.weights[model],
                pick_device("cpu" if self._compute.by_workers else device_names(self._compute.device)[0]),
                self._image_size,
                precision=self._compute.precision,
                index=self._index,
                trust_remote_code=self._trusted,
            )
            for line in self._loaded[model].notes:
                progress.note(line)
        return self._loaded[model]


def _check_trusted(trusted: Sequence[str], models: Sequence[str]) -> None:
    """Raise InputError for a repository of no model in the request, so that a typing error allows no other code."""
    places = {place for model in models if (place := find_spec(model).code_place) is not None}
    for one in trusted:
        if one not in places:
            known = f"Its models are in {', '.join(sorted(places))}" if places else "It has no hf: model"
            raise InputError(f"--trust-remote-code {one}: the request uses no model of it. {known}.")


def _named(model: str, request: FeaturizeRequest) -> list[str]:
    """Return the names of a model with each embedding rule and with the views that the request names."""
    names = [with_rule(model, rule) for rule in request.embeddings] or [model]
    return names if request.views is None else [with_views(name, request.views) for name in names]
