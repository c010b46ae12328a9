import pytest

from rainfusion_core.errors import ConfigError, UnknownName
from rf_cli import presets


@pytest.fixture
def folder(config_home):
    path = config_home / "rf" / "presets"
    path.mkdir(parents=True)
    return path


def test_a_users_preset_is_found_by_name_and_by_alias(folder):
    (folder / "mine.toml").write_text(
        'base = "wan2.1-1.3b"\ndescription = "mine"\naliases = ["m"]\n[sampling]\nsteps = 7\n'
    )
    assert "mine" in presets.names()
    mine = presets.load("m")
    assert (mine.name, mine.description, mine.sampling.steps) == ("mine", "mine", 7)
    assert presets.resolve("mine") == mine


def test_a_preset_inherits_what_it_does_not_say(folder):
    (folder / "mine.toml").write_text(
        'base = "wan2.1-1.3b"\n[tasks]\nvideo-to-video = "WanVideoToVideoPipeline"\n'
    )
    mine, base = presets.load("mine"), presets.load("wan2.1-1.3b")
    assert mine.video == base.video and mine.sampling == base.sampling
    assert dict(mine.tasks) == {"video-to-video": "WanVideoToVideoPipeline"}
    assert not mine.aliases, "an alias means one model"


def test_another_repository_does_not_inherit_the_commit(folder):
    (folder / "first.toml").write_text('base = "wan2.1-1.3b"\n[model]\nrevision = "abc"\n')
    (folder / "second.toml").write_text('base = "first"\n[model]\nlocation = "somebody/else"\n')
    assert presets.load("first").model.revision == "abc"
    assert presets.load("second").model.revision is None
    assert presets.load("second").model.dtype == "bfloat16"


@pytest.mark.parametrize("base", ["mine", "nowhere", "other"])
def test_a_base_that_is_not_there_or_leads_back_is_refused(folder, base):
    (folder / "other.toml").write_text('base = "mine"\n')
    (folder / "mine.toml").write_text(f'base = "{base}"\n')
    with pytest.raises(ConfigError, match=r"\.toml: base must be one of .*shapes.*, got"):
        presets.load("mine")


def test_a_users_preset_goes_before_a_shipped_one(folder):
    (folder / "shapes.toml").write_text('base = "wan2.1-1.3b"\ndescription = "not shapes"\n')
    assert presets.load("shapes").description == "not shapes"


def test_a_broken_preset_hides_no_other(folder):
    (folder / "broken.toml").write_text("steps = = 3")
    (folder / "wrong.toml").write_text('base = "shapes"\nstep = 3\n')
    found = [preset.name for preset in presets.all_presets()]
    assert "shapes" in found and not {"broken", "wrong"} & set(found)
    assert presets.load("wan2.1").name == "wan2.1-1.3b"
    with pytest.raises(ConfigError, match=r"broken\.toml is not TOML"):
        presets.load("broken")


def test_misspelled_model_is_answered_with_the_nearest():
    with pytest.raises(UnknownName) as caught:
        presets.load("wan2.1-1.3")
    assert caught.value.hint == "did you mean 'wan2.1-1.3b'? rf models lists all"


def test_an_unknown_model_is_answered_with_a_line_that_can_be_read():
    with pytest.raises(UnknownName) as caught:
        presets.load("wan9")
    shown = str(caught.value).partition("; known: ")[2].split(" and ")[0].split(", ")
    assert [name for name in shown if name.startswith("wan2.")] == shown and len(shown) == 5
    assert caught.value.hint.endswith("rf models lists all")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        presets.read(tmp_path / "nowhere.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        presets.read(tmp_path / "bytes.toml")


def test_what_a_preset_changes_has_not_the_source_of_its_base(folder):
    (folder / "mine.toml").write_text(
        'base = "wan2.1-1.3b"\n[sampling]\nsteps = 9\nguidance = 3.0\n'
        '[sources]\n"sampling.guidance" = "tried out"\n'
    )
    mine, base = presets.load("mine"), presets.load("wan2.1-1.3b")
    assert mine.source("sampling.steps") == "mine.toml"
    assert mine.source("sampling.guidance") == "tried out"
    assert mine.source("sampling.negative") == base.source("sampling.negative") != ""
