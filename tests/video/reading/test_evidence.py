"""What samples of a clip's fields say together: shares at which one kind of content becomes another."""

import pytest

from seedvr2_engine.video.reading.fields.decide import _Evidence


def evidence(**facts) -> _Evidence:
    usual = {"seen": 100, "flagged": 0, "known": 100, "top": 0, "bottom": 0, "agreeing": 0, "film": 0.0, "uneven": 0.0}
    return _Evidence(**{**usual, **facts})


@pytest.mark.parametrize(
    ("facts", "content"),
    [
        ({}, "progressive"),
        ({"known": 0}, "unknown"),
        ({"film": 0.8}, "telecine"),
        ({"film": 0.79, "top": 40, "agreeing": 40}, "mixed"),
        ({"film": 0.3, "top": 40, "agreeing": 40}, "mixed"),
        ({"top": 20, "agreeing": 20}, "interlaced"),
        ({"top": 19, "agreeing": 19}, "progressive"),
        ({"top": 8, "agreeing": 8, "flagged": 1}, "interlaced"),
        ({"top": 7, "agreeing": 7, "flagged": 1}, "progressive"),
        ({"known": 4, "top": 2, "agreeing": 2}, "progressive"),
        ({"top": 20, "bottom": 20, "agreeing": 30}, "interlaced"),
        ({"top": 20, "bottom": 20, "agreeing": 29}, "progressive"),
        ({"uneven": 0.2, "film": 1.0}, "soft telecine"),
        ({"uneven": 0.19}, "progressive"),
    ],
)
def test_content(facts, content):
    assert evidence(**facts).content == content


@pytest.mark.parametrize(
    ("top", "bottom", "top_first"), [(9, 1, True), (1, 9, False), (8, 2, None), (2, 0, None), (3, 0, True)]
)
def test_the_order_of_fields_is_that_of_nine_in_ten(top, bottom, top_first):
    assert evidence(top=top, bottom=bottom).top_first is top_first


@pytest.mark.parametrize(("flagged", "is_flagged"), [(50, False), (51, True)])
def test_most_flags_decide(flagged, is_flagged):
    assert evidence(flagged=flagged).is_flagged == is_flagged
