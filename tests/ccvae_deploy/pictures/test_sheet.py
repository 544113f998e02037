"""Contact sheets: what stands where, and the same bytes every time."""

import threading

import numpy as np
import pytest

from ccvae_deploy.images import from_array
from ccvae_deploy.pictures import canvas
from ccvae_deploy.pictures.sheet import CAPTION, CELL, GAP, HEAD, contact_sheet, small


def plain(colour: tuple[int, int, int], width: int = 60, height: int = 60):
    return from_array(np.full((height, width, 3), colour, np.uint8))


def test_originals_stand_left_of_their_samples() -> None:
    rows = [(plain((250, 0, 0)), [plain((0, 250, 0)), plain((0, 0, 250))]), (plain((9, 9, 9)), [plain((99, 9, 9))])]
    sheet = np.asarray(contact_sheet(rows, "smiling=1"))
    middle = HEAD + CELL // 2
    first = 3 * GAP + CELL
    assert sheet[middle, GAP + CELL // 2].tolist() == [250, 0, 0]
    assert sheet[middle, first + CELL // 2].tolist() == [0, 250, 0]
    assert sheet[middle, first + CELL + GAP + CELL // 2].tolist() == [0, 0, 250]
    assert sheet[middle + CELL + GAP, first + CELL // 2].tolist() == [99, 9, 9]


def test_aspect_is_kept_and_paper_shows_around() -> None:
    sheet = np.asarray(contact_sheet([(plain((0, 0, 0), 20, 80), [plain((0, 0, 0))])], "x"))
    row = sheet[HEAD + CELL // 2, GAP : GAP + CELL, 0]
    assert (row < 128).sum() == CELL // 4


def test_at_most_twelve_rows_of_eight() -> None:
    one = plain((1, 2, 3))
    title = "a title that is much too long for the sheet " * 20
    sheet = contact_sheet([(one, [one] * 20)] * 40, title)
    assert sheet.size == (3 * GAP + CELL + 8 * (CELL + GAP), HEAD + 12 * (CELL + GAP))
    assert sheet.tobytes() == contact_sheet([(one, [one] * 8)] * 12, title).tobytes()


def test_rows_that_differ_have_captions_of_their_own() -> None:
    rows = [(plain((250, 0, 0)), [plain((0, 250, 0))]), (plain((0, 0, 250)), [plain((9, 9, 9))])]
    sheet = np.asarray(contact_sheet(rows, "by plan", ["smiling=1", "young=vary"]))
    assert len(sheet) == HEAD + 2 * (CAPTION + CELL + GAP)
    for row, colour in enumerate(([0, 250, 0], [9, 9, 9])):
        top = HEAD + row * (CAPTION + CELL + GAP)
        assert (sheet[top : top + CAPTION, 3 * GAP + CELL :] < 200).any()
        assert sheet[top + CAPTION + CELL // 2, 3 * GAP + CELL + CELL // 2].tolist() == colour


def test_few_samples_do_not_cut_the_title() -> None:
    one, title = plain((1, 2, 3)), "smiling=1, 1 sample each"
    narrow, wide = contact_sheet([(one, [one])], title), contact_sheet([(one, [one] * 8)], title)
    assert narrow.width < wide.width
    heading = (0, 0, narrow.width, HEAD)
    assert narrow.crop(heading).tobytes() == wide.crop(heading).tobytes()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 900), (3000, 1), (700, 20), (127, 128)])
def test_odd_sizes_stay_within_their_cells(width: int, height: int) -> None:
    one = small(plain((10, 20, 30), width, height))
    assert max(one.size) == CELL
    assert min(one.size) == max(1, round(min(width, height) * CELL / max(width, height)))
    assert small(one) is one
    sheet = np.asarray(contact_sheet([(plain((10, 20, 30), width, height), [one])], "x"))
    cell = sheet[HEAD : HEAD + CELL, GAP : GAP + CELL]
    assert (cell[CELL // 2, CELL // 2] == (10, 20, 30)).all() or min(one.size) == 1
    outside = sheet[HEAD : HEAD + CELL, GAP + CELL : GAP + CELL + GAP // 2]
    assert (outside == 255).all()


def test_a_large_picture_is_made_smaller_to_one_that_is_still_large(monkeypatch) -> None:
    """One large picture at a time is in Pillow's memory; the smaller one waits for the larger to go."""
    monkeypatch.setattr(canvas, "LARGE", 1000)
    shrunk = threading.Thread(target=small, args=[plain((1, 2, 3), 100, 100), 80], daemon=True)
    shrunk.start()
    shrunk.join(20)
    assert not shrunk.is_alive()


def test_grey_and_transparent_pictures_lie_on_the_paper() -> None:
    grey = from_array(np.full((50, 50), 77, np.uint8))
    clear = from_array(np.dstack([np.full((50, 50, 3), 9, np.uint8), np.zeros((50, 50), np.uint8)]))
    sheet = np.asarray(contact_sheet([(grey, [clear])], "x"))
    middle = HEAD + CELL // 2
    assert sheet[middle, GAP + CELL // 2].tolist() == [77, 77, 77]
    assert sheet[middle, 3 * GAP + CELL + CELL // 2].tolist() == [255, 255, 255]
