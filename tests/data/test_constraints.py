"""What a setting may be: the words for what it may not."""

import pytest

from shared.data.constraints import Maybe, OneOf, SettingError, Several, Whole, nearest, require


@pytest.mark.parametrize(
    ("constraint", "value", "says"),
    [
        (OneOf("layer", "batch"), "Layr", "norm='Layr' is not known: choose layer, batch; did you mean 'layer'?"),
        (Maybe(OneOf("layer", "batch")), "bach", "choose layer, batch, or None; did you mean 'batch'?"),
        (OneOf("layer", 3), "zzz", "choose layer, 3"),
        (OneOf("layer", 3), ["layer"], "choose layer, 3"),
        (Several("accuracy", "macro_f1"), ("accuracy", "macro f1"), "macro_f1; did you mean 'macro_f1'?"),
        (Several("accuracy"), "accuracy", "are not known: choose of accuracy"),
        (Several("accuracy"), (), "are not known: choose of accuracy"),
        (Several("accuracy"), None, "are not known: choose of accuracy"),
        (Whole(1), "1", "is not a whole number from 1 up"),
    ],
)
def test_the_nearest_known_name_ends_the_message(constraint, value, says):
    with pytest.raises(SettingError) as raised:
        require(constraint, norm=value)
    assert str(raised.value).endswith(says)
    assert nearest("zzz", ["layer"]) == "" == nearest("layer", [])
