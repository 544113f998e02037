"""Contact sheets: what stands where, and the same bytes every time."""

import numpy as np

from ccvae_deploy.images import from_array
from ccvae_deploy.sheet import CELL, GAP, HEAD, contact_sheet


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
