"""Predicting for a dataset's split: features from the cache, or made and kept there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.backbones.recorded import check_fingerprint, refuse_imported, weights_of
from mt.cache.catalog import Catalog, settled
from mt.cache.feature_file.format import Status
from mt.cache.salt import hashed_id, id_salt
from mt.datasets.settings import decoded_alike
from mt.errors import DatasetError, InputError
from mt.fuse.aligned import in_first_order
from mt.predict.load import is_end_to_end, load_model, stated
from mt.predict.predicted import Predictions
from mt.system import files
from mt.system.device import first_device
from mt.terminal import progress
from mt.terminal.progress import counted

if TYPE_CHECKING:
    from mt.cache.feature_file.read import FeatureFile
    from mt.predict.request import PredictRequest


def predict_dataset(request: PredictRequest) -> Predictions:
    """Predict for a dataset's split; features that are not in the cache are made and kept there.

    Raises InputError for a request or a saved model that cannot be used, WeightsError if a backbone's weights are
    missing or different, DatasetError for the dataset's files, and CacheError for the feature files.
    """
    if not request.dataset:
        raise InputError("No dataset to predict for. Name one: --dataset NAME")
    if is_end_to_end(request.model):
        from mt.fuse.end_to_end.saved import load_tuned

        request.check_end_to_end()
        tuned = load_tuned(request.model)
        names, problems = tuned.unreadable(request.dataset, request.split, data_dir=request.data_folder)
        if problems and request.on_error == "raise":
            first, why = next(iter(problems.items()))
            raise DatasetError(
                f"{len(problems)} of {len(names)} images cannot be read, first {first}: {why.removesuffix('.')}. "
                "Omit such images: --on-error skip"
            )
        _, p = tuned.predict_split(
            request.dataset,
            request.split,
            data_dir=request.data_folder,
            device=first_device(request.device, "A network trained end to end"),
            without=problems,
        )
        if tuned.about.get("dataset_settings", {}).get("hash_ids"):
            salt = id_salt(files.cache_dir(request.cache_dir))
            names = [hashed_id(name, salt) for name in names]
            problems = {hashed_id(name, salt): why for name, why in problems.items()}
        shown = problems if request.on_error == "skip" else None
        return Predictions(names, p, tuned.class_names, tuned.task, shown)
    saved, cache = load_model(request.model), files.cache_dir(request.cache_dir)
    request = replace(request, dataset=decoded_alike(request.dataset, saved.about))
    made = [_cached(cache, request, about) or _featurized(cache, request, about) for about in saved.backbones]
    p, ids = saved.predict_proba(in_first_order(made)), list(made[0].ids)
    skipped = {name: f"{status.name.lower().replace('_', ' ')} image" for name, status in made[0].skipped()}
    if skipped and request.on_error == "raise":
        have = counted(len(skipped), "image has", "images have")
        progress.note(f"{have} no features and no row here. To list them: --on-error skip")
    for line in stated(saved):
        progress.note(line)
    if request.on_error == "raise":
        return Predictions(ids, p, saved.class_names, saved.task, thresholds=saved.thresholds)
    return Predictions(_every_id(made[0]), p, saved.class_names, saved.task, skipped, saved.thresholds)


def _every_id(file: FeatureFile) -> list[str]:
    """Return the ids of all rows in their order, those without an embedding included."""
    made, skipped = iter(file.ids), iter(name for name, _ in file.skipped())
    return [next(made if status == Status.OK else skipped) for status in file.status.tolist()]


def _cached(cache: Path, request: PredictRequest, about: dict[str, Any]) -> FeatureFile | None:
    """Return the newest complete features of a split by the backbone that the model was fitted on."""
    found = Catalog(cache).entries(datasets=[str(request.dataset)], splits=[request.split], everything=True)
    entries = [
        entry
        for entry in found
        if entry.complete and "limited" not in entry.flags and entry.fingerprints["backbone"] == about["fingerprint"]
    ]
    entries = settled(entries, [str(request.dataset)])
    return max(entries, key=lambda entry: entry.modified).open(verify=True) if entries else None


def _featurized(cache: Path, request: PredictRequest, about: dict[str, Any]) -> FeatureFile:
    """Make the features of a split by the backbone that the model was fitted on; any other is refused beforehand."""
    from mt.backbones.registry import find_spec
    from mt.cache import open_features
    from mt.cache.content import ContentIndex
    from mt.featurize import extract
    from mt.featurize.loaded import LoadedBackbones
    from mt.featurize.request import Compute, FeaturizeRequest

    refuse_imported(about)
    description = about["description"] or {}
    asked = FeaturizeRequest(
        [str(request.dataset)],
        [about["name"]],
        [request.split],
        data_dir=request.data_folder,
        cache_dir=cache,
        weights=weights_of(about, request.weights),
        image_size=description.get("image_size"),
        compute=Compute(
            request.device,
            description.get("precision", "float32"),
            on_error=request.on_error,
            engine=request.engine,
        ),
        trust_remote_code=[one for one in request.trust_remote_code if one == find_spec(about["name"]).code_place],
    )
    index = ContentIndex()
    backbones = LoadedBackbones(asked, index)
    check_fingerprint(about, backbones.identity(backbones.models[0]).fingerprint)
    results = extract(asked, index=index, backbones=backbones)
    return open_features(results[0].path)
