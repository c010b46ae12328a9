import pytest

from rainfusion_core.errors import OutputError
from rf_cli.saving import check_target, write


def test_a_file_is_replaced_and_nothing_lies_beside_it(tmp_path):
    path = tmp_path / "out.md"
    path.write_text("old")
    check_target("--save", path, [".md"])
    write(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("out.gif", "--save must end in .md or .csv, got"), ("no/out.md", "there is no folder")],
)
def test_a_target_that_cannot_be_written_is_refused(tmp_path, name, problem):
    with pytest.raises(OutputError, match=problem):
        check_target("--save", tmp_path / name, [".md", ".csv"])


def test_a_folder_is_no_target(tmp_path):
    (tmp_path / "out.md").mkdir()
    with pytest.raises(OutputError, match=r"out.md is a folder"):
        check_target("--save", tmp_path / "out.md", [".md"])


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "no" / "out.md", b"new")
    assert list(tmp_path.iterdir()) == []
