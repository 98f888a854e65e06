"""Rows on several models get short names and a key."""

from __future__ import annotations

from mt.probe.name_key import shortened


def test_all_models_are_said_to_be_all_and_a_key_names_them() -> None:
    names, key = shortened(["a", "dvme: a + b + c", "concat: a + b + c", "dvme: a + b", "dvme: b + c"])
    assert names == {
        "a": "a",
        "dvme: a + b + c": "dvme: all 3 models",
        "concat: a + b + c": "concat: all 3 models",
        "dvme: a + b": "dvme: 2 models A",
        "dvme: b + c": "dvme: 2 models B",
    }
    assert key == ["all 3 models: a, b, c.", "2 models A: a, b.", "2 models B: b, c."]


def test_rows_on_one_model_need_no_key() -> None:
    assert shortened(["a", "b"]) == ({"a": "a", "b": "b"}, [])


def test_more_than_26_sets_of_models_have_names_of_their_own() -> None:
    names, key = shortened([f"concat: a + m{number}" for number in range(30)])
    assert len(set(names.values())) == len(key) == 30


def test_a_scaling_is_no_model() -> None:
    names, key = shortened(["concat: a + b", "concat: a + b, temperature", "a, temperature"])
    assert list(names.values()) == ["concat: all 2 models", "concat: all 2 models, temperature", "a, temperature"]
    assert key == ["all 2 models: a, b."]
