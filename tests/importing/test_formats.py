"""Every format: the numbers, ids and types that were written are those that the feature files hold."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mt.errors import InputError, MissingExtraError
from tests.importing import elsewhere as sample

Write = Callable[[Path, np.ndarray], Path]


def npy(folder: Path, X: np.ndarray) -> Path:
    np.save(folder / "x.npy", X)
    return folder / "x.npy"


def fortran(folder: Path, X: np.ndarray) -> Path:
    np.save(folder / "x.npy", np.asfortranarray(X))
    return folder / "x.npy"


def npz(folder: Path, X: np.ndarray) -> Path:
    np.savez(folder / "x.npz", embeddings=X, ids=np.array(sample.ids()), other=np.zeros(3))
    return folder / "x.npz"


def table(folder: Path, X: np.ndarray) -> Path:
    columns: dict[str, Any] = {"id": sample.ids()}
    columns |= {f"f{place}": X[:, place].astype(str) for place in reversed(range(X.shape[1]))}
    return sample.write_table(folder / "x.csv", columns)


def parquet(folder: Path, X: np.ndarray) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {"id": pa.array(sample.ids()), "embedding": pa.array(list(X))}
    pq.write_table(pa.table(columns), folder / "x.parquet")
    return folder / "x.parquet"


def wide_parquet(folder: Path, X: np.ndarray) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {"id": pa.array(sample.ids()), **{f"emb_{k}": pa.array(X[:, k]) for k in range(X.shape[1])}}
    pq.write_table(pa.table(columns), folder / "x.parquet")
    return folder / "x.parquet"


def pt(folder: Path, X: np.ndarray) -> Path:
    torch.save(torch.from_numpy(X), folder / "x.pt")
    return folder / "x.pt"


def pt_of_names(folder: Path, X: np.ndarray) -> Path:
    torch.save({"features": torch.from_numpy(X), "ids": sample.ids()}, folder / "x.pt")
    return folder / "x.pt"


def pt_by_id(folder: Path, X: np.ndarray) -> Path:
    torch.save(dict(zip(sample.ids(), torch.from_numpy(X), strict=True)), folder / "x.pt")
    return folder / "x.pt"


def old_pt(folder: Path, X: np.ndarray) -> Path:
    torch.save(torch.from_numpy(X), folder / "x.pt", _use_new_zipfile_serialization=False)
    return folder / "x.pt"


def safetensors(folder: Path, X: np.ndarray) -> Path:
    save_file({"embeddings": torch.from_numpy(X)}, folder / "x.safetensors")
    return folder / "x.safetensors"


def hdf5(folder: Path, X: np.ndarray) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        file["features"] = X
        file["ids"] = sample.ids()
    return folder / "x.h5"


FORMATS = [npy, fortran, npz, table, parquet, wide_parquet, pt, pt_of_names, pt_by_id, old_pt, safetensors, hdf5]


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_format_gives_back_what_was_written(tmp_path: Path, write: Write, dtype: str) -> None:
    X = sample.matrix(dtype=dtype)
    file, labels = write(tmp_path, X), sample.label_table(tmp_path / "labels.csv")
    sample.imported(tmp_path / "cache", file, labels=[labels])
    found = sample.by_id(tmp_path / "cache")
    assert np.array_equal(np.array([found[name] for name in sample.ids()]).astype(dtype), X)
    assert sample.opened(tmp_path / "cache").embeddings.dtype == (np.float32 if write is table else X.dtype)


def test_bfloat16_and_float64_become_float32(tmp_path: Path) -> None:
    X = sample.matrix()
    torch.save(torch.from_numpy(X).bfloat16(), tmp_path / "x.pt")
    np.save(tmp_path / "x.npy", X.astype("f8"))
    labels = sample.label_table(tmp_path / "labels.csv")
    sample.imported(tmp_path / "one", tmp_path / "x.pt", labels=[labels])
    sample.imported(tmp_path / "two", tmp_path / "x.npy", labels=[labels])
    one, two = sample.opened(tmp_path / "one").embeddings, sample.opened(tmp_path / "two").embeddings
    assert one.dtype == two.dtype == np.float32
    assert np.allclose(one, two, rtol=0.01)


def test_dtype_can_be_chosen(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", sample.matrix())
    sample.imported(tmp_path, tmp_path / "x.npy", labels=[sample.label_table(tmp_path / "labels.csv")], dtype="float16")
    assert sample.opened(tmp_path).embeddings.dtype == np.float16


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"\x93NUMPY\x01\x00", "not a whole .npy file"),
        ("x.npz", b"PK\x03\x04 cut", "not a whole .npz file"),
        ("x.pt", b"PK\x03\x04 cut", "not a whole .pt file"),
        ("x.safetensors", b"\x08", "not a whole .safetensors file"),
        ("x.h5", b"\x89HDF\r\n\x1a\n", "not a whole HDF5 file"),
        ("x.parquet", b"PAR1 cut", "not a whole parquet file"),
        ("x.csv", b"id,f0,f1\n", "no rows below its header"),
        ("x.csv", b"id,f0,f1\na,1\n", "line 2: 2 values, expected 3"),
        ("x.csv", b"id,f0,f1\ncase 0,1,one\n", "line 2: 'one' is not a number"),
        ("x.csv", b"id,label\na,1\n", "no columns of embeddings"),
        ("x.csv", b"id,f0,f2\na,1,2\n", "lacks the column f1"),
        ("x.txt", b"1", "no format that mt imports"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    labels = sample.label_table(tmp_path / "labels.csv")
    with pytest.raises(InputError, match=message) as error:
        sample.imported(tmp_path / "cache", tmp_path / name, labels=[labels], shared=True)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").rglob("*.h5"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\), expected"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.array([["a"]]), "expected embeddings of float16"),
        (np.zeros((3, 2), dtype=complex), "expected embeddings of float16"),
    ],
)
def test_what_is_no_matrix_is_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=message):
        sample.imported(tmp_path, tmp_path / "x.npy", labels=[sample.label_table(tmp_path / "labels.csv")])


def test_key_chooses_among_arrays(tmp_path: Path) -> None:
    X, labels = sample.matrix(), sample.label_table(tmp_path / "labels.csv")
    np.savez(tmp_path / "x.npz", first=X, second=2 * X)
    with pytest.raises(InputError, match=r"first \(24, 6\), second \(24, 6\). Choose: --key NAME"):
        sample.imported(tmp_path, tmp_path / "x.npz", labels=[labels])
    with pytest.raises(InputError, match=r"holds no 'third'. Found: first, second"):
        sample.imported(tmp_path, tmp_path / "x.npz", labels=[labels], key="third")
    sample.imported(tmp_path, tmp_path / "x.npz", labels=[labels], key="second")
    assert np.array_equal(sample.by_id(tmp_path)["case 0"], 2 * X[0])


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'medical-transfer\[tables\]'"):
        sample.imported(tmp_path, tmp_path / "x.parquet", labels=[])


def test_several_files_have_one_width(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", sample.matrix())
    np.save(tmp_path / "b.npy", sample.matrix(dim=7))
    with pytest.raises(InputError, match=r"b.npy has 7 dimensions and .*a.npy has 6"):
        sample.imported(tmp_path, f"train={tmp_path / 'a.npy'}", f"test={tmp_path / 'b.npy'}", labels=[])
