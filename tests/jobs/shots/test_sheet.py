"""Contact sheets hold the first, the middle and the last frame of every shot."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from seedvr2_engine.jobs.shot import divided
from seedvr2_engine.jobs.shots.sheet import SHOTS_A_PAGE, ContactSheet
from seedvr2_engine.video import Frame


def pages(lengths, count=None, size=(36, 64)):
    """Sheets of shots of these lengths, of which `count` frames are there, whose red is the frame's number."""
    total, starts = sum(lengths), np.cumsum(lengths)[:-1].tolist()
    shots = divided(total, [(start, "cut") for start in starts])
    sheet = ContactSheet(shots, tuple(f"{number}" for number in range(1, len(shots) + 1)))
    frames = []
    for index in range(total if count is None else count):
        picture = torch.zeros(3, *size)
        picture[0], picture[1] = index / 255, 1.0
        frames.append(Frame(picture, None, index, 1))
    made = [np.array(Image.open(io.BytesIO(page))) for page in sheet.draw(frames)]
    assert len(made) == sheet.pages or count is not None
    return made


def numbers(page):
    """The frames on a page, as their pictures stand from above and from the left, a column at a time."""
    green = (page[:, :, 1] == 255) & (page[:, :, 2] == 0)
    rows = [y for y in range(1, len(green)) if green[y].any() and not green[y - 1].any()]
    found = []
    for y in rows:
        line = green[y + 2]
        found.append([int(page[y + 2, x, 0]) for x in range(1, len(line)) if line[x] and not line[x - 1]])
    return found


def test_every_shot_shows_its_first_middle_and_last_frame():
    [page] = pages([9, 4, 2, 1])
    assert numbers(page) == [[0, 4, 8], [9, 10, 12], [13, 14], [15]]


def test_many_shots_stand_in_columns_on_pages():
    first, second = pages([2] * (SHOTS_A_PAGE + 3))
    assert numbers(first)[0] == [0, 1, SHOTS_A_PAGE, SHOTS_A_PAGE + 1]
    assert len(numbers(first)) == SHOTS_A_PAGE // 2
    assert numbers(second) == [[2 * SHOTS_A_PAGE + 2 * shot, 2 * SHOTS_A_PAGE + 2 * shot + 1] for shot in range(3)]


@pytest.mark.parametrize(("count", "shown"), [(3, [[0, 1, 2], []]), (0, None)])
def test_a_source_that_ends_early_leaves_pictures_out(count, shown):
    made = pages([3, 5], count)
    assert [numbers(page) for page in made] == ([] if shown is None else [[row for row in shown if row]])


def test_transparent_parts_are_grey_and_text_is_light():
    picture, alpha = torch.ones(3, 8, 300), torch.zeros(1, 8, 300)
    sheet = ContactSheet(divided(1, []), ("1   frame 0",))
    [data] = sheet.draw([Frame(picture, alpha, 0, 1)])
    page = np.array(Image.open(io.BytesIO(data)))
    assert (abs(page.astype(int) - 128) <= 1).all(2).sum() in range(224 * 6, 224 * 6 + 9)
    assert (page[:20] > 180).all(2).sum() > 40
