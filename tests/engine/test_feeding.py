"""Whether a batch fits the images: a hint, once followed, leads to a run and to no other error."""

import re

import pytest

from groco_cli.engine.configuration import by_section, resolve
from groco_cli.engine.feeding import check_batch
from groco_cli.engine.objective import build_loss
from groco_cli.engine.settings import PretrainSettings
from groco_cli.errors import UsageError

OF_PHOTOS = "--recipe folder-resnet18"


def check(settings: PretrainSettings, images: int) -> None:
    check_batch(settings, "photos", images, build_loss(settings.loss, settings.method.method))


@pytest.mark.parametrize(
    ("recipe", "images", "remedies"),
    [
        ("groco-2views-100ep", 200, [OF_PHOTOS, "--batch-size 200"]),
        ("groco-2views-100ep", 40, [f"{OF_PHOTOS} --batch-size 40"]),
        ("groco-2views-100ep", 5, [f"{OF_PHOTOS} --negatives 8 --batch-size 5"]),
        ("digits", 100, ["--batch-size 100"]),
        ("digits", 2, ["--negatives 2 --batch-size 2"]),
    ],
)
def test_what_to_type_for_few_images_works(recipe: str, images: int, remedies: list[str]):
    with pytest.raises(UsageError, match=rf"is more than the {images} training images of photos") as caught:
        check(resolve(recipe, None, {}), images)
    assert caught.value.hint == f"type {', or '.join(remedies)} or less"
    for remedy in remedies:
        typed = dict(re.findall(r"--(\S+) (\S+)", remedy))
        numbers = {"num_negatives": typed.get("negatives"), "batch_size": typed.get("batch-size")}
        given = by_section({name: int(number) for name, number in numbers.items() if number})
        check(resolve(typed.get("recipe", recipe), None, given), images)


def test_of_one_image_nothing_can_be_learnt():
    with pytest.raises(UsageError, match="than the 1 training image of photos") as caught:
        check(resolve("digits", None, {}), 1)
    assert caught.value.hint == "give it more images"
