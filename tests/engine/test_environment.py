"""Settings from the environment: what each variable becomes, and what a mistake looks like."""

import dataclasses

import pytest

from groco_cli.distributed.launch import STOP_FILE
from groco_cli.engine.environment import from_environment
from groco_cli.engine.settings import PretrainSettings
from groco_cli.errors import UsageError


@pytest.mark.parametrize(
    ("variable", "text", "setting", "value"),
    [
        ("GROCO_BATCH_SIZE", "512", "batch_size", 512),
        ("GROCO_LR", "0.5", "learning_rate", 0.5),
        ("GROCO_LEARNING_RATE", "6", "learning_rate", 6.0),
        ("GROCO_NEGATIVES", "5", "num_negatives", 5),
        ("GROCO_MARGIN", "inf", "margin", float("inf")),
        ("GROCO_CROP_SCALE", "0.2 1.0", "crop_scale", (0.2, 1.0)),
        ("GROCO_BLUR", "1,0.1", "blur", (1.0, 0.1)),
        ("GROCO_LOG_TO", "tensorboard,wandb", "log_to", ("tensorboard", "wandb")),
        ("GROCO_PREORDER", "0", "preorder", False),
        ("GROCO_STOP_GRADIENT", "True", "stop_gradient", True),
        ("GROCO_SAVE_EVERY", "10", "save_every", "10"),
        ("GROCO_DATA", "/some/where, else", "data", "/some/where, else"),
        ("GROCO_RECIPE", "digits", "recipe", "digits"),
    ],
)
def test_a_variable_is_read_as_its_setting_s_kind(variable, text, setting, value):
    found = from_environment({variable: text, "HOME": "/", "GROCOX": "1"})
    assert found.values == {setting: value}
    assert type(found.values[setting]) is type(value)
    assert found.variables == {setting: variable}


def test_every_setting_has_a_variable():
    texts = {"int": "3", "float": "0.5", "bool": "1", "str": "x", "tuple[float, ...]": "1 2", "tuple[str, ...]": "x"}
    defaults = PretrainSettings()
    for section in (field.name for field in dataclasses.fields(defaults) if field.name != "recipe"):
        for setting in dataclasses.fields(getattr(defaults, section)):
            plain = setting.type in (int, float, bool, str)
            kind = setting.type.__name__ if plain else str(setting.type).removesuffix(" | None")
            found = from_environment({f"GROCO_{setting.name.upper()}": texts[kind]})
            assert list(found.values) == [setting.name]


@pytest.mark.parametrize(
    ("environment", "message", "hint"),
    [
        ({"GROCO_BACH_SIZE": "3"}, "GROCO_BACH_SIZE: no such setting", "did you mean 'GROCO_BATCH_SIZE'"),
        ({"GROCO_" + 40 * "X": "3"}, "XX: no such setting", "unset it"),
        ({"GROCO_BATCH_SIZE": "many"}, "GROCO_BATCH_SIZE=many: not a whole number", "unset"),
        ({"GROCO_BATCH_SIZE": "2.5"}, "GROCO_BATCH_SIZE=2.5: not a whole number", "unset"),
        ({"GROCO_BLUR": "1 often"}, "GROCO_BLUR=1 often: not numbers", "unset"),
        ({"GROCO_PREORDER": "maybe"}, "GROCO_PREORDER=maybe: not 1 or 0", "unset"),
        ({"GROCO_LR": "1", "GROCO_LEARNING_RATE": "2"}, "GROCO_LEARNING_RATE and GROCO_LR", "unset one"),
    ],
)
def test_a_mistake_names_its_variable(environment, message, hint):
    with pytest.raises(UsageError) as caught:
        from_environment(environment)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_what_is_empty_or_groco_s_own_is_no_setting():
    assert from_environment({"GROCO_EPOCHS": "", STOP_FILE: "/a/stop", "_GROCO_COMPLETE": "x"}).values == {}


def test_what_was_typed_is_not_taken_from_the_environment():
    found = from_environment({"GROCO_EPOCHS": "3", "GROCO_LR": "2"}).under({"epochs": 5, "learning_rate": None})
    assert found.values == {"learning_rate": 2.0}
    assert found.variables == {"learning_rate": "GROCO_LR"}


def test_a_command_takes_only_what_it_has_a_use_for(capsys):
    found = from_environment({"GROCO_RECIPE": "digits", "GROCO_VIEWS": "4", "GROCO_EPOCHS": "3"})
    used = found.only({"views", "recipe", "seed"})
    assert (used.recipe, used.settings) == ("digits", {"views": 4})
    used.announce()
    found.only({"seed"}).announce()
    assert capsys.readouterr().err == "settings   GROCO_RECIPE, GROCO_VIEWS from the environment\n"


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("--batch-size 0 is out of range", "GROCO_BATCH_SIZE"),
        ("--lr nan is out of range", "GROCO_LR"),
        ("--resume: the run has optim.batch_size = 32, not 64", "GROCO_BATCH_SIZE"),
        ("--epochs 0 is out of range", ""),
    ],
)
def test_a_value_that_cannot_be_used_names_the_variable_it_came_from(message, named):
    found = from_environment({"GROCO_BATCH_SIZE": "64", "GROCO_LR": "2"})
    with pytest.raises(UsageError) as caught, found.blamed():
        raise UsageError(message)
    assert caught.value.message == message + (f" ({named} in the environment)" if named else "")
