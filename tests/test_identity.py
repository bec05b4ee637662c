import subprocess
import sys

from simforge.identity import derived_seed, digest, rng, shuffled_item


def test_equal_content_has_equal_digest_whatever_the_order_of_keys():
    assert digest({"b": [1, "é"], "a": None}) == digest({"a": None, "b": [1, "é"]})
    assert digest({"a": 1}) != digest({"a": "1"})


def test_randomness_is_the_same_in_every_process():
    code = (
        "from simforge.identity import *; print(rng(3, 'order', 'k').random(), "
        "derived_seed(3, 'x'), digest('é'))"
    )
    outside = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert outside == [
        str(rng(3, "order", "k").random()),
        str(derived_seed(3, "x")),
        digest("é"),
    ]


def test_purpose_and_key_cannot_be_confused():
    assert derived_seed(1, "ab", "c") != derived_seed(1, "a", "bc")


def test_a_cycle_gives_every_item_once_before_any_comes_again():
    items = list("abcdefg")
    rounds = [
        [shuffled_item(items, r * 7 + i, 0, "p") for i in range(7)] for r in range(3)
    ]
    assert all(sorted(one) == items for one in rounds)
    assert rounds[0] != rounds[1] or rounds[1] != rounds[2]
