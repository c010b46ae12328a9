import pytest

from rainfusion_core.errors import OutputError
from rf_cli.cells import Cells

KEY = {"clip": 1, "variant": "é"}


def test_what_was_put_is_there_the_next_time(tmp_path):
    Cells(tmp_path / "cells.jsonl").put(KEY, {"recall": 0.5})
    again = Cells(tmp_path / "cells.jsonl")
    assert again.get({"variant": "é", "clip": 1}) == {"recall": 0.5}
    assert again.get({"clip": 2}) is None and len(again) == 1


def test_a_line_that_a_killed_run_left_unfinished_is_dropped(tmp_path):
    path = tmp_path / "cells.jsonl"
    cells = Cells(path)
    cells.put(KEY, {"recall": 0.5})
    whole = path.read_bytes()
    cells.put({"clip": 2}, {"recall": 0.6})
    for length in range(len(whole), len(path.read_bytes())):
        path.write_bytes((whole + b'{"key": {"clip": 2}, "value": {"recall": 0.6}}')[:length])
        again = Cells(path)
        assert len(again) == 1 and again.get(KEY) == {"recall": 0.5}
        again.put({"clip": 3}, {})
        assert len(Cells(path)) == 2


def test_the_last_value_of_a_key_counts(tmp_path):
    cells = Cells(tmp_path / "cells.jsonl")
    cells.put(KEY, {"recall": 0.5})
    cells.put(KEY, {"recall": 0.7})
    assert Cells(cells.path).get(KEY) == {"recall": 0.7}


def test_another_file_is_refused(tmp_path):
    (tmp_path / "cells.jsonl").write_text("mine\n")
    with pytest.raises(OutputError, match=r"cells\.jsonl does not hold finished cells"):
        Cells(tmp_path / "cells.jsonl")
