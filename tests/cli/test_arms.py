import pytest

from rainfusion_core import SparseConfig
from rainfusion_core.errors import ConfigError, RainfusionError, UnknownName
from rf_cli import arms

BASE = SparseConfig(sparsity=0.8, dense_steps=0.2)


def made(**given):
    return arms.arms_of(BASE, **{"sparsities": [], "methods": [], "variants": [], **given})


def test_a_variant_is_read_by_the_types_of_the_settings():
    text = "sparsity=0.8, dense_steps=2,1,order=raster,dense_layers=0-2,-1,sink=no,block_size=64"
    assert arms.read_variant(text) == {
        "sparsity": 0.8, "dense_steps": 2, "dense_last_steps": 1, "order": "raster",
        "dense_layers": (0, 1, 2, -1), "sink": False, "block_size": 64,
    }  # fmt: skip


def test_an_unknown_key_names_the_allowed_ones():
    with pytest.raises(UnknownName) as caught:
        arms.read_variant("sparsty=0.8")
    assert str(caught.value).startswith("no setting of --variant is called 'sparsty'; known: ")
    assert "dense_steps" in str(caught.value) and caught.value.hint == "did you mean 'sparsity'?"


def test_a_variant_may_leave_the_sink_to_its_rule():
    assert arms.read_variant("sink=auto") == {"sink": "auto"}


@pytest.mark.parametrize("text", ["", "raster", "sparsity=much", "sink=perhaps", "sparsity=1.5"])
def test_other_variants_are_refused(text):
    with pytest.raises(RainfusionError):
        made(variants=[text])


def test_dense_is_first_and_every_sparsity_is_an_arm():
    found = made(sparsities=[0.5, 0.9])
    assert [arm.name for arm in found] == ["dense", "sparsity 0.5", "sparsity 0.9"]
    assert [arm.config.sparsity for arm in found] == [0, 0.5, 0.9]
    assert {arm.config.dense_steps for arm in found} == {0.2}


def test_methods_and_sparsities_multiply():
    names = [arm.name for arm in made(sparsities=[0.5, 0.9], methods=["rainfusion2"])]
    assert names[1:] == ["sparsity 0.5, method rainfusion2", "sparsity 0.9, method rainfusion2"]


def test_without_any_choice_the_presets_settings_are_the_arm():
    assert [arm.config for arm in made()[1:]] == [BASE]


def test_a_variant_changes_only_what_it_names():
    (_, arm) = made(variants=["order=raster"])
    assert arm.name == "sparsity 0.8, order raster"
    assert (arm.config.order, arm.config.dense_steps) == ("raster", 0.2)


def test_a_variant_without_dense_layers_is_called_so():
    (_, arm) = made(variants=["dense_layers=none"])
    assert arm.name == "sparsity 0.8, dense_layers none"


def test_an_arm_that_is_there_twice_is_refused():
    with pytest.raises(ConfigError, match="two arms are the same"):
        made(sparsities=[0.5, 0.5])
    with pytest.raises(ConfigError, match="sparsity 0 is dense"):
        made(sparsities=[0.0])


def test_seeds_are_a_list_without_repetitions():
    assert arms.read_seeds("3, 1,3") == [3, 1]
    with pytest.raises(ConfigError, match="--seeds must be whole numbers, got '1,x'"):
        arms.read_seeds("1,x")


def test_prompts_are_lines_without_comments(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("# animals\n\n a cat \na #1 dog\n", "utf-8")
    assert arms.read_prompts(path) == ["a cat", "a #1 dog"]


def test_prompts_that_cannot_be_read_are_one_line(tmp_path):
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.write_text("# nothing\n")
    binary.write_bytes(b"\xff\xfe\x00")
    for path, problem in [
        (tmp_path / "none.txt", "cannot be read: No such file or directory"),
        (empty, "holds no prompt"),
        (binary, "cannot be read: it is not UTF-8 text"),
    ]:
        with pytest.raises(ConfigError, match=problem):
            arms.read_prompts(path)


def test_file_names_of_arms_are_plain_and_unique():
    assert arms.unique(["sparsity 0.8, order raster", "a/b", "a b"]) == [
        "sparsity-0.8-order-raster", "a-b", "a-b-2",
    ]  # fmt: skip


def test_a_variant_sets_mass_sink_and_options_of_the_method():
    text = "method=rainfusion2,mass=0.9,sink=yes,options.parts=4,options.representative=max"
    assert arms.read_variant(text) == {
        "method": "rainfusion2", "mass": 0.9, "sink": True,
        "options": {"parts": 4, "representative": "max"},
    }  # fmt: skip
    arm = made(variants=[text])[1]
    assert arm.name.endswith("options parts=4+representative=max")


MASS = SparseConfig(mass=0.9, options={"parts": 4})


def test_a_mass_target_and_options_given_once_are_those_of_every_arm_but_the_dense_one():
    dense, first, second = arms.arms_of(
        MASS, sparsities=[], methods=["rainfusion2", "paro"], variants=[]
    )
    assert (dense.config.mass, dense.config.options) == (None, {})
    assert [first.name, second.name] == ["mass 0.9, method rainfusion2", "mass 0.9, method paro"]
    assert {(arm.config.mass, arm.config.options["parts"]) for arm in (first, second)} == {(0.9, 4)}


@pytest.mark.parametrize(
    ("text", "name", "mass", "options"),
    [
        ("order=raster", "mass 0.9, order raster", 0.9, {"parts": 4}),
        ("sparsity=0.7", "sparsity 0.7", None, {"parts": 4}),
        ("mass=0.5", "mass 0.5", 0.5, {"parts": 4}),
        ("method=paro", "mass 0.9, method paro", 0.9, {}),
        ("options.parts=2", "mass 0.9, options parts=2", 0.9, {"parts": 2}),
        (
            "options.representative=max", "mass 0.9, options parts=4+representative=max", 0.9,
            {"parts": 4, "representative": "max"},
        ),
    ],
)  # fmt: skip
def test_a_variant_stands_on_top_of_a_mass_target_and_options(text, name, mass, options):
    _, arm = arms.arms_of(MASS, sparsities=[], methods=[], variants=[text])
    assert (arm.name, arm.config.mass, arm.config.options) == (name, mass, options)


def test_a_mass_target_and_sparsities_exclude_each_other():
    with pytest.raises(ConfigError, match="--mass and --sparsity exclude each other"):
        arms.arms_of(MASS, sparsities=[0.5], methods=[], variants=[])


def test_options_without_a_name_are_refused():
    with pytest.raises(UnknownName, match="no setting of --variant is called 'options'"):
        arms.read_variant("options=3")
