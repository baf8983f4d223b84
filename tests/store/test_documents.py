"""Documents that carry their own checksum: whatever else lies in their place is refused in one line."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store_tools import write_store
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.store.documents import opened_json, sealed_json

DEEP = b"[" * 100_000
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["attributes", "tinyhd", "a"]), inner),
)


@given(st.dictionaries(st.text(st.characters()), st.text(st.characters(codec=None))))
def test_what_is_sealed_is_what_is_opened_whatever_text_it_is(facts: dict[str, str]) -> None:
    sealed = sealed_json(facts)
    assert opened_json(sealed) == facts
    json.loads(sealed.decode())


def test_half_of_a_surrogate_pair_survives() -> None:
    assert opened_json(sealed_json({"id": "caf\udce9.mp4"})) == {"id": "caf\udce9.mp4"}


@given(JSON)
def test_other_json_is_refused(value: object) -> None:
    for text in (value, {"attributes": value}, {"attributes": {"tinyhd": value}}):
        with pytest.raises(ValueError, match="not a document of tinyhd-pipe, or damaged"):
            opened_json(json.dumps(text).encode())


@pytest.mark.parametrize("text", [DEEP, DEEP + b"]" * 100_000, b'{"attributes":' * 100_000, b"\xff\xfe", b""])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a document of tinyhd-pipe, or damaged"):
        opened_json(text)


@pytest.mark.parametrize("file", ["zarr.json", "shards/00000/zarr.json", "plans/00000.json"])
def test_a_document_of_brackets_costs_one_line(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "maps.zarr"
    write_store(store, {"a.avi": 5})
    (store / file).write_bytes(DEEP)
    for command in ("info", "verify"):
        code = run(["store", command, str(store)])
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert code == (0 if (command, file) == ("info", "plans/00000.json") else 1)
        assert code == 0 or "damaged" in said
