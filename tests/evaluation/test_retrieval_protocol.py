import pytest

from groco_cli.errors import UsageError
from groco_cli.evaluation.retrieval_protocol import named_protocol, parse_scales


def test_all_of_a_protocol_is_said():
    assert str(named_protocol("dino", "rparis6k")) == (
        "dino, 512 pixels, scales 1, 0.7071, 0.5, queries whole, whitening off"
    )
    assert str(named_protocol("revisitop", "roxford5k")) == (
        "revisitop, 224 pixels, scales 1, queries cropped to their box, whitening off"
    )


def test_scales_are_read():
    assert parse_scales("1") == (1.0,)
    assert parse_scales("1, 0.7071,.5") == (1.0, 0.7071, 0.5)


@pytest.mark.parametrize("listed", ["", "1,", "one", "0", "1,-0.5", "nan", "inf", "5"])
def test_what_is_no_list_of_scales_is_told(listed: str):
    with pytest.raises(UsageError, match="--scales"):
        parse_scales(listed)


def test_an_unknown_protocol_is_told():
    with pytest.raises(UsageError, match="--protocol delf") as failed:
        named_protocol("delf", "")
    assert failed.value.hint == "type dino or revisitop"
    with pytest.raises(UsageError, match="--protocol dinno") as failed:
        named_protocol("dinno", "")
    assert "'dino'" in failed.value.hint
