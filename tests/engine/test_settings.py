"""Settings: what is refused, and in which order recipe, file and options count."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch

from groco_cli.data.counter import uniforms
from groco_cli.data.sampling import shuffled
from groco_cli.data.sources.named import ALIASES, NAMED
from groco_cli.distributed.launch import LaunchSettings
from groco_cli.engine.configuration import by_section, override, read_toml, resolve, resume_settings, to_toml
from groco_cli.engine.objective import build_loss
from groco_cli.engine.recipes import _DEFAULTS, RECIPES, better_recipe, default_recipe
from groco_cli.engine.settings import LossSettings, MethodSettings, OptimSettings, PretrainSettings, ViewSettings
from groco_cli.errors import UsageError
from groco_cli.losses import GroCoLoss, InfoNCELoss, MoCoLoss, TripletLoss


@pytest.mark.parametrize(
    ("section", "values", "option"),
    [
        ("views", {"augmentation": "dinno"}, "--augmentation dinno.*did you mean 'dino'"),
        ("views", {"views": 1}, "--views 1"),
        ("views", {"hue": 0.7}, "--hue 0.7"),
        ("views", {"blur": (1.0, 1.5)}, "--blur 1.5"),
        ("views", {"crop_scale": (0.5, 0.1)}, "--crop-scale 0.5 0.1"),
        ("views", {"blur_sigma": (2.0,)}, "--blur-sigma"),
        ("views", {"interpolation": "cubic"}, "--interpolation cubic.*'bicubic'"),
        ("method", {"method": "moco3"}, "--method moco3.*'mocov3'"),
        ("method", {"forward": "per-veiw"}, "--forward per-veiw.*'per-view'"),
        ("method", {"ema_momentum": 1.5}, "--ema-momentum 1.5"),
        ("loss", {"num_negatives": 0}, "--negatives 0"),
        ("loss", {"beta": 0.0}, "--beta 0.0"),
        ("loss", {"loss": "infonze"}, "--loss infonze.*'infonce'"),
        ("loss", {"temperature": 0.0}, "--temperature 0.0"),
        ("loss", {"margin": -1.0}, "--margin -1.0"),
        ("loss", {"variant": "papers"}, "--variant papers.*'paper'"),
        ("loss", {"network": "bitonc"}, "--network bitonc.*'bitonic'"),
        ("loss", {"relaxation": "spline"}, "--relaxation spline.*cauchy, logistic"),
        ("views", {"local_crop_scale": (0.5, 0.1)}, "--local-crop-scale 0.5 0.1.*type --local-crop-scale 0.05 0.14"),
        ("views", {"contrast": -0.5}, "--contrast -0.5.*type 0 or more"),
        ("views", {"saturation": float("inf")}, "--saturation inf.*type 0 or more"),
        ("views", {"grey": 2.0}, "--grey 2.0.*type a number from 0 to 1"),
        ("optim", {"learning_rate": float("nan")}, "--lr nan"),
        ("optim", {"epochs": 3, "warmup_epochs": 4}, "--warmup-epochs 4"),
        ("optim", {"optimizer": "adam"}, "--optimizer adam.*'adamw'"),
        ("run", {"precision": "fp8"}, "--precision fp8"),
        ("data", {"subset": -1}, "--subset -1"),
    ],
)
def test_values_out_of_range_name_their_option(section, values, option):
    with pytest.raises(UsageError) as caught:
        resolve("digits", None, {section: values})
    assert_matches(option, caught.value)


def assert_matches(pattern: str, error: UsageError) -> None:
    line = f"{error.message}; {error.hint}"
    for part in pattern.split(".*"):
        assert part in line


def test_options_override_the_file_which_overrides_the_recipe(tmp_path):
    file = tmp_path / "some.toml"
    file.write_text('recipe = "digits"\n[optim]\nepochs = 7\nbatch_size = 64\n')
    settings = resolve(None, file, {"optim": {"epochs": 9}})
    assert settings.optim.epochs == 9
    assert settings.optim.batch_size == 64
    assert settings.optim.learning_rate == RECIPES["digits"].settings.optim.learning_rate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optim]\nepocs = 7\n", "no setting epocs"),
        ("[optimm]\nepochs = 7\n", "no section [optimm]"),
        ('[optim]\nepochs = "7"\n', "epochs = '7' should be a whole number; write it like epochs = 100"),
        ("[views]\nviews = 2.5\n", "views = 2.5 should be a whole number"),
        ("[views]\nhue = true\n", "hue = True should be a number; write it like hue = 0.5"),
        ("[run]\ncompile = 1\n", "compile = 1 should be true or false; write it like compile = false"),
        ("[views]\nblur = 1.0\n", "blur = 1.0 should be a list of numbers; write it like blur = [0.2, 1.0]"),
        ("[data]\ndata = []\n", 'should be text; write it like data = "digits"'),
        ("[data]\ndata_root = 7.5\n", 'should be text; write it like data_root = "text"'),
        ("[run]\nsave_every = 1.5\n", 'should be text; write it like save_every = "1,30min"'),
        ("[run]\nlog_to = 'wandb'\n", 'should be a list of texts; write it like log_to = ["tensorboard"]'),
        ("[run]\nlog_to = ['w&b']\n", "--log-to w&b: no such choice"),
        ("[views]\ncrop_scale = ['a', 'b']\n", "[views]: crop_scale = ['a', 'b'] should be a list of numbers"),
        ("[views]\ncrop_scale = [true, 1]\n", "[views]: crop_scale = [True, 1] should be a list of numbers"),
        ("[views]\nblur = ['x']\n", "[views]: blur = ['x'] should be a list of numbers; write it like blur = [0.2"),
        ("[views]\nblur = [[1.0]]\n", "[views]: blur = [[1.0]] should be a list of numbers"),
        ("[views]\nblur = []\n", "--blur has no value; write one for all views or one for each, such as blur = [1.0"),
        ("[views]\nsolarise = []\n", "--solarise has no value"),
        ("[views]\nblur = [1, 0, 7]\n", "--blur 7.0 is out of range; type a number from 0 to 1"),
        ("[views]\nblur_sigma = [0.1, inf]\n", "--blur-sigma 0.1 inf is out of range; type --blur-sigma 0.1 2.0"),
        (
            "[views]\nmean = ['a', 'b', 'c']\n",
            "should be a list of numbers; write it like mean = [0.485, 0.456, 0.406]",
        ),
        ("[views]\nmean = [0.5, 0.5]\n", "views.mean = [0.5, 0.5] should be 3 numbers, one for each channel; write"),
        ("[views]\nmean = [0.5]\n", "views.mean = [0.5] should be 3 numbers"),
        ("[views]\nmean = [nan, 0, 0]\n", "views.mean = [nan, 0.0, 0.0] should be 3 numbers"),
        ("[views]\nstd = [0, 1, 1]\n", "views.std = [0.0, 1.0, 1.0] should be 3 positive numbers"),
        ("[views]\nstd = [inf, 1, 1]\n", "views.std = [inf, 1.0, 1.0] should be 3 positive numbers"),
        (
            "[run]\nseed = 18446744073709551616\n",
            "--seed 18446744073709551616 is out of range; type a number from 0 to",
        ),
        ("[nothing]\nx = 1\n", "there are data, views, model, method, loss, optim, run"),
        ("optim = 7\n", "optim is a section"),
        ("[optim\n", "is no TOML"),
    ],
)
def test_a_file_with_mistakes_is_refused(tmp_path, text, message):
    file = tmp_path / "some.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        resolve("digits", file, {})
    assert message in f"{caught.value.message}; {caught.value.hint}"
    assert caught.value.hint


def test_the_largest_seed_that_is_taken_is_the_largest_that_torch_and_numpy_take():
    seed = resolve("digits", None, {"run": {"seed": 2**64 - 1}}).run.seed
    torch.Generator().manual_seed(seed)
    assert sorted(shuffled(4, seed)(0)) == [0, 1, 2, 3]
    assert uniforms(1, seed=seed, epoch=0, view=0, samples=np.arange(2)).shape == (2, 1)
    with pytest.raises(ValueError, match="Overflow"):
        torch.Generator().manual_seed(seed + 1)


def test_whole_numbers_may_stand_in_a_list_of_numbers(tmp_path):
    file = tmp_path / "some.toml"
    file.write_text("[views]\nblur = [1, 0]\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n")
    views = resolve("digits", file, {}).views
    assert (views.blur, views.mean, views.std) == ((1.0, 0.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert {type(value) for value in views.blur} == {float}


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(UsageError) as caught:
        resolve("digit", None, {})
    assert "did you mean 'digits'" in caught.value.hint


@pytest.mark.parametrize("name", RECIPES)
def test_settings_survive_being_written_and_read(tmp_path, name):
    file = tmp_path / "settings.toml"
    settings = RECIPES[name].settings
    file.write_text(to_toml(settings))
    assert resolve(None, file, {}) == settings
    assert read_toml(file)["recipe"] == name


def test_a_resumed_run_takes_another_device_but_no_other_setting(tmp_path):
    file = tmp_path / "my settings.toml"
    file.write_text(to_toml(RECIPES["digits"].settings))
    moved = resume_settings(file, {"run": {"device": "cpu"}, "data": {"workers": 3}})
    assert (moved.run.device, moved.data.workers) == ("cpu", 3)
    assert resume_settings(file, {"optim": {"epochs": moved.optim.epochs}}).optim == moved.optim
    skips = {"data": "/elsewhere/pictures", "on_bad_image": "skip"}
    assert resume_settings(file, {"data": skips}).data == replace(moved.data, workers=-1, **skips)
    with pytest.raises(UsageError, match=r"optim.epochs") as refused:
        resume_settings(file, {"optim": {"epochs": moved.optim.epochs + 1}})
    assert refused.value.hint.endswith(f"begin a new run with --config '{file}'")


@pytest.mark.parametrize(
    ("recipe", "given", "left"),
    [
        ("mocov3-vits-100ep", {"loss": "groco"}, LossSettings(loss="groco")),
        ("groco-beta2-n10", {"loss": "infonce"}, LossSettings(loss="infonce")),
        ("triplet-margin-0.8", {"loss": "groco"}, LossSettings(loss="groco")),
        ("triplet-margin-0.8", {"loss": "groco", "beta": 4.0}, LossSettings(loss="groco", beta=4.0)),
        ("mocov3-vits-100ep", {"loss": "infonce"}, LossSettings(loss="infonce", temperature=0.2)),
    ],
)
@pytest.mark.parametrize("layer", ["options", "file"])
def test_another_loss_leaves_the_recipe_s_settings_of_the_old_one_behind(tmp_path, layer, recipe, given, left):
    expected = replace(left, num_negatives=RECIPES[recipe].settings.loss.num_negatives)
    file = tmp_path / "some.toml"
    file.write_text(tomli_w.dumps({"loss": given}))
    settings = resolve(recipe, *((file, {}) if layer == "file" else (None, {"loss": given})))
    assert settings.loss == expected
    build_loss(settings.loss, settings.method.method)
    file.write_text(to_toml(settings))
    assert resolve(None, file, {}) == settings


@pytest.mark.parametrize("layer", ["options", "file"])
def test_what_is_given_beside_another_loss_has_to_be_that_loss_s(tmp_path, layer):
    given = {"loss": {"loss": "groco", "temperature": 0.5}}
    file = tmp_path / "some.toml"
    file.write_text(tomli_w.dumps(given))
    settings = resolve("mocov3-vits-100ep", *((file, {}) if layer == "file" else (None, given)))
    with pytest.raises(UsageError, match="--temperature is no setting of --loss groco"):
        build_loss(settings.loss, settings.method.method)


def test_another_backbone_has_its_own_attention_heads_unless_some_are_given():
    recipe = "mocov3-vits-100ep"
    assert resolve(recipe, None, {"model": {"arch": "resnet18"}}).model.attention_heads == 0
    assert resolve(recipe, None, {"model": {"arch": "vit_small_patch16_224"}}).model.attention_heads == 12
    assert resolve(recipe, None, {"model": {"arch": "vit_tiny_patch16_224", "attention_heads": 6}}).model == replace(
        RECIPES[recipe].settings.model, arch="vit_tiny_patch16_224", attention_heads=6
    )


MANY = {"gpus": 8, "nodes": 2, "rdzv": "head:1"}


@pytest.mark.parametrize(
    ("begun", "typed", "wanted"),
    [
        ({"processes": 2}, {"gpus": 1}, {"gpus": 1}),
        ({"device": "cpu", "processes": 2}, {"gpus": 4}, {"gpus": 4}),
        (MANY, {"device": "cpu"}, {"device": "cpu"}),
        (MANY, {"gpus": 1}, {"gpus": 1}),
        (MANY, {"gpus": 4, "nodes": 3}, {"gpus": 4, "nodes": 3, "rdzv": "head:1"}),
        (MANY, {"rdzv": "other:2"}, MANY | {"rdzv": "other:2"}),
        (MANY, {"nodes": 4}, MANY | {"nodes": 4}),
        (MANY, {"nodes": 1}, {"gpus": 8}),
        (MANY, {"keep": 5, "process_timeout": 60}, MANY | {"process_timeout": 60}),
        (MANY, {}, MANY),
    ],
)
def test_a_resumed_run_goes_on_where_it_is_told_to_whatever_it_was_begun_on(tmp_path, begun, typed, wanted):
    file = tmp_path / "settings.toml"
    file.write_text(to_toml(override(RECIPES["digits"].settings, {"run": begun}, "test")))
    assert resume_settings(file, {"run": typed}).run.launch() == LaunchSettings(**wanted)


def test_what_a_resumed_run_is_told_has_to_agree_with_itself(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(to_toml(RECIPES["digits"].settings))
    with pytest.raises(UsageError, match="--gpus 1 and --device cpu contradict each other"):
        resume_settings(file, {"run": {"gpus": 1, "device": "cpu"}})


def test_the_paper_s_recipe_is_the_published_one():
    settings = RECIPES["groco-2views-100ep"].settings
    assert settings.optim == OptimSettings(
        optimizer="sgd",
        learning_rate=6.0,
        lr_scaling="linear",
        momentum=0.9,
        weight_decay=1e-6,
        batch_size=1024,
        epochs=100,
        warmup_epochs=1,
    )
    assert settings.optim.peak_learning_rate == 24.0
    assert settings.loss == LossSettings(loss="groco")
    loss = build_loss(settings.loss)
    assert isinstance(loss, GroCoLoss)
    assert (loss.num_negatives, loss.beta, loss.preorder, loss.stop_gradient, loss.variant) == (
        10,
        1.0,
        True,
        True,
        "paper",
    )
    assert settings.views == ViewSettings(augmentation="dino", views=2, local_views=0, image_size=224)
    assert dataclasses.asdict(settings.model) == {
        "arch": "resnet50",
        "stem": "imagenet",
        "attention_heads": 0,
        "projector_hidden": 2048,
        "projector_out": 2048,
        "projector_layers": 3,
    }


@pytest.mark.parametrize(("name", "loss"), [("mocov3-vits-100ep", "infonce"), ("groco-mocov3-vits-100ep", "groco")])
def test_moco_v3_s_recipes_are_its_settings_for_vits_with_the_paper_s_batch(name, loss):
    settings = RECIPES[name].settings
    assert settings.method == MethodSettings(method="mocov3", ema_momentum=0.99, freeze_patches=True)
    assert (settings.optim.optimizer, settings.optim.weight_decay, settings.optim.batch_size) == ("adamw", 0.1, 1024)
    assert settings.optim.peak_learning_rate == pytest.approx(6e-4)
    assert (settings.optim.epochs, settings.optim.warmup_epochs) == (100, 40)
    assert settings.loss == LossSettings(loss=loss, temperature=0.2 if loss == "infonce" else None)
    assert (settings.model.arch, settings.model.attention_heads) == ("vit_small_patch16_224", 12)
    assert (settings.model.projector_hidden, settings.model.projector_out) == (4096, 256)


def test_losses_are_built_by_name_with_their_own_defaults():
    infonce = build_loss(LossSettings(loss="infonce"))
    assert isinstance(infonce, InfoNCELoss)
    assert (infonce.temperature, infonce.num_negatives, infonce.stop_gradient) == (0.1, None, False)
    moco = build_loss(LossSettings(loss="infonce"), "mocov3")
    assert isinstance(moco, MoCoLoss)
    assert (moco.temperature, moco.num_negatives) == (0.2, None)
    assert isinstance(build_loss(LossSettings(), "mocov3"), GroCoLoss)
    triplet = build_loss(LossSettings(loss="triplet", margin=float("inf")))
    assert isinstance(triplet, TripletLoss)
    assert (triplet.margin, triplet.num_negatives, triplet.stop_gradient) == (float("inf"), 10, True)
    groco = build_loss(LossSettings(network="bitonic", relaxation="gaussian"))
    assert isinstance(groco, GroCoLoss)
    assert (groco.kind, groco.relaxation) == ("bitonic", "gaussian")
    for loss in ("infonce", "triplet"):
        with pytest.raises(UsageError, match=f"--network is no setting of --loss {loss}"):
            build_loss(LossSettings(loss=loss, network="bitonic"))
    with pytest.raises(UsageError, match="--margin is no setting of --loss groco"):
        build_loss(LossSettings(margin=0.8))


def test_an_infinite_margin_survives_the_settings_file(tmp_path):
    file = tmp_path / "settings.toml"
    settings = resolve("digits", None, {"loss": {"loss": "triplet", "margin": float("inf")}})
    file.write_text(to_toml(settings))
    assert resolve(None, file, {}) == settings


def test_the_square_root_rule_gives_the_same_rate_at_the_published_batch():
    assert OptimSettings(learning_rate=12.0, lr_scaling="sqrt").peak_learning_rate == 24.0


def test_every_data_set_has_a_recipe():
    assert {default_recipe(data) for data in (*NAMED, *ALIASES, "/some/folder")} <= set(RECIPES)
    assert set(_DEFAULTS) == set(NAMED)


def test_small_pictures_are_not_blown_up_by_default():
    """Sizes of the sets' own pictures: torchvision's documentation."""
    sizes = {"mnist": 28, "fashion-mnist": 28, "kmnist": 28, "usps": 16, "svhn": 32, "cifar10": 32, "cifar100": 32}
    for data, size in {**sizes, "stl10": 96, "stl10-unlabeled": 96}.items():
        settings = resolve(None, None, {"data": {"data": data}})
        assert settings.views.image_size == {16: 32, 28: 32}.get(size, size)
        assert (settings.model.arch, settings.optim.batch_size <= 256) == ("resnet18", True)


def test_digits_are_not_mirrored_by_default():
    for data in ("digits", "mnist", "svhn", "usps"):
        drawn = resolve(None, None, {"data": {"data": data}}).views.draw()
        assert [view.photometric.flip_probability for view in drawn] == [0, 0]


def test_large_sets_and_folders_get_the_papers_and_few_images_another_proposal():
    for data in ("imagenet", "places365", "~/photos", "a-{0..9}.tar"):
        assert default_recipe(data) == "groco-2views-100ep"
    assert default_recipe("pets") == default_recipe("oxford-iiit-pet") == "folder-resnet18"
    assert better_recipe("groco-2views-100ep", 2_000) == "folder-resnet18"
    assert better_recipe("groco-2views-100ep", 1_281_167) == better_recipe("cifar10-quick", 2_000) == ""


def test_small_pictures_are_measured_whole_and_large_ones_as_published():
    assert ViewSettings(image_size=32).evaluation_resize == 32
    assert ViewSettings(image_size=224).evaluation_resize == 256


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PretrainSettings().recipe = "mine"  # type: ignore[misc]


def test_each_parameter_of_the_views_can_be_set_and_the_rest_stays_published():
    published = ViewSettings(views=3, local_views=1).draw()
    changed = ViewSettings(views=3, local_views=1, hue=0.3, crop_scale=(0.2, 0.9), blur=(0.5, 0.25), flip=0.0).draw()
    assert [view.photometric.hue for view in changed] == [0.3] * 4
    assert [view.photometric.flip_probability for view in changed] == [0.0] * 4
    assert [view.crop_scale for view in changed] == [(0.2, 0.9)] * 3 + [published[3].crop_scale]
    assert [view.photometric.blur_probability for view in changed] == [
        0.5,
        0.25,
        0.5,
        0.5,
    ]  # the last is the local one's
    for before, after in zip(published, changed, strict=True):
        photometric = replace(
            after.photometric, hue=0.1, flip_probability=0.5, blur_probability=before.photometric.blur_probability
        )
        assert replace(after, crop_scale=before.crop_scale, photometric=photometric) == before


def test_options_find_their_section_by_their_name():
    given = {"epochs": 3, "blur": [1.0, 0.1], "output": Path("x"), "beta": None, "data": "digits"}
    assert by_section(given) == {
        "optim": {"epochs": 3},
        "views": {"blur": (1.0, 0.1)},
        "run": {"output": "x"},
        "data": {"data": "digits"},
    }
    with pytest.raises(KeyError):
        by_section({"epoch": 3})


def test_no_two_sections_have_a_setting_of_one_name():
    defaults = PretrainSettings()
    sections = [getattr(defaults, f.name) for f in dataclasses.fields(defaults) if f.name != "recipe"]
    names = [field.name for section in sections for field in dataclasses.fields(section)]
    assert len(names) == len(set(names))


def test_views_are_told_by_number_and_size():
    assert str(ViewSettings()) == "2×224"
    assert str(ViewSettings(views=3, image_size=160, local_views=6)) == "3×160 + 6×96"
