"""The datasets by name: what each is, where it comes from, and the function that reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mt.datasets.settings import DatasetSettings

if TYPE_CHECKING:
    from mt.cache.content import ContentIndex

OnError = Literal["raise", "skip"]


@dataclass(frozen=True)
class DatasetSpec:
    """One line of `mt datasets`, and how to read the dataset.

    `usage` is how its name is typed; `task` its task, in words where the files decide; `infers` whether settings other
    than the seed apply; `obtain` one sentence on where the files come from.
    """

    loader: str
    usage: str
    task: str
    licence: str
    layout: str
    obtain: str
    paper: str = ""
    argument: Literal["none", "optional", "required"] = "none"
    infers: bool = False
    downloads: bool = False


@dataclass(frozen=True)
class DatasetRequest:
    """The arguments of a loader; see `mt.datasets.load_dataset`."""

    name: str
    argument: str
    spec: DatasetSpec
    data_dir: Path
    download: bool = False
    settings: DatasetSettings = field(default_factory=DatasetSettings)
    on_error: OnError = "raise"
    index: ContentIndex | None = None


_HERE = "mt.datasets.readers"

DATASETS: dict[str, DatasetSpec] = {
    "pcam": DatasetSpec(
        loader=f"{_HERE}.pcam:load",
        usage="pcam",
        task="binary",
        licence="CC0-1.0",
        layout="camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5[.gz] and, optional, ..._meta.csv",
        obtain="Download the twelve files from https://github.com/basveeling/pcam (7.7 GB) into DATA/pcam.",
        paper="Veeling et al. 2018, arXiv:1806.03962",
    ),
    "aptos2019": DatasetSpec(
        loader=f"{_HERE}.aptos:load",
        usage="aptos2019",
        task="ordinal",
        licence="Kaggle competition rules (non-commercial research)",
        layout="train.csv (id_code, diagnosis) and train_images/*.png",
        obtain="Accept the rules on https://kaggle.com/c/aptos2019-blindness-detection, unpack into DATA/aptos2019.",
        paper="APTOS 2019 Blindness Detection, Kaggle",
    ),
    "pneumonia": DatasetSpec(
        loader=f"{_HERE}.pneumonia:load",
        usage="pneumonia",
        task="binary",
        licence="CC-BY-4.0",
        layout="chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg",
        obtain="Download v2 or v3 from https://doi.org/10.17632/rscbjbr9sj and unpack into DATA/pneumonia.",
        paper="Kermany et al. 2018, doi:10.1016/j.cell.2018.02.010",
    ),
    "nih-cxr14": DatasetSpec(
        loader=f"{_HERE}.nih:load",
        usage="nih-cxr14",
        task="multilabel",
        licence="NIH: no restrictions on use; cite the paper and link the source",
        layout="Data_Entry_2017*.csv, train_val_list.txt, test_list.txt, images*/**/*.png",
        obtain="Download everything from https://nihcc.app.box.com/v/ChestXray-NIHCC and unpack into DATA/nih-cxr14.",
        paper="Wang et al. 2017, arXiv:1705.02315",
    ),
    "medmnist": DatasetSpec(
        loader=f"{_HERE}.medmnist:load",
        usage="medmnist:NAME[@SIZE]",
        task="by name",
        licence="CC-BY-4.0 (dermamnist: CC-BY-NC-4.0)",
        layout="NAME.npz (28 pixels) or NAME_SIZE.npz (64, 128, 224)",
        obtain="Use --download, or download the .npz from https://zenodo.org/records/10519652 into DATA/medmnist.",
        paper="Yang et al. 2023, doi:10.1038/s41597-022-01721-8",
        argument="required",
        downloads=True,
    ),
    "folder": DatasetSpec(
        loader=f"{_HERE}.folder:load",
        usage="folder:PATH",
        task="binary or multiclass, by the number of class folders",
        licence="yours",
        layout="PATH/class/image or PATH/{train,val,test}/class/image",
        obtain="Put your own images into one folder per class.",
        argument="required",
        infers=True,
    ),
    "table": DatasetSpec(
        loader=f"{_HERE}.table:load",
        usage="table:CSV",
        task="by the columns, or --task",
        licence="yours",
        layout="columns image, label (or one 0/1 column per label); optional split, group, sex, age, site, view, ...",
        obtain="Write a CSV that names your own images.",
        argument="required",
        infers=True,
    ),
    "digits": DatasetSpec(
        loader=f"{_HERE}.digits:load",
        usage="digits",
        task="multiclass",
        licence="CC-BY-4.0",
        layout="none: 1,797 scanned digits that come with scikit-learn",
        obtain="Nothing to fetch.",
        paper="Alpaydin and Kaynak 1998, doi:10.24432/C50P49",
    ),
    "synthetic": DatasetSpec(
        loader=f"{_HERE}.synthetic:load",
        usage="synthetic[@N]",
        task="binary",
        licence="CC0-1.0",
        layout="none: generated H&E-like 96x96 patches, N to train on (2,000) and N / 2 to test",
        obtain="Nothing to fetch.",
        argument="optional",
    ),
}
