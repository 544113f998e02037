"""Labels and layouts: columns, blocks, names."""

import pytest
from pydantic import ValidationError

from ccvae_deploy.errors import LabelError
from ccvae_deploy.schema import Label, LabelSet, LatentLayout

LABELS = LabelSet(
    labels=(
        Label(name="Smiling"),
        Label(name="Hair", kind="categorical", classes=("a", "b", "c"), dims=2),
        Label(name="Young"),
    )
)


def test_columns_follow_the_kinds() -> None:
    assert LABELS.columns == (slice(0, 1), slice(1, 4), slice(4, 5))
    assert LABELS.width == 5


def test_layout_puts_characteristic_blocks_first() -> None:
    layout = LatentLayout(blocks=(1, 2, 1), residual=7)
    assert layout.slices == (slice(0, 1), slice(1, 3), slice(3, 4))
    assert (layout.z_c, layout.size) == (4, 11)


@pytest.mark.parametrize("name", ["smiling", "SMILING", "smi-ling", " Smiling "])
def test_names_match_without_case_dashes_and_blanks(name: str) -> None:
    assert LABELS.index(name) == 0


def test_unknown_names_give_the_nearest() -> None:
    with pytest.raises(LabelError, match="unknown label 'smile': did you mean Smiling"):
        LABELS.index("smile")


@pytest.mark.parametrize(
    "labels",
    [
        (Label(name="a_b"), Label(name="A B")),
        (),
    ],
)
def test_label_sets_that_are_none(labels: tuple[Label, ...]) -> None:
    with pytest.raises(ValidationError):
        LabelSet(labels=labels)


@pytest.mark.parametrize(
    "fields", [{"classes": ("a",)}, {"classes": ("a", "A")}, {"dims": 0}, {"name": ""}, {"name": "a\nb"}]
)
def test_labels_that_are_none(fields: dict) -> None:
    with pytest.raises(ValidationError):
        Label(**{"name": "x", **fields})
