"""The processor by itself; LMX's own tests run it in engines."""

import numpy as np
import pytest
from lmx_no_repeat import no_repeat_ngram


def barred(tokens, **options):
    row = np.zeros(10, np.float32)
    no_repeat_ngram(options, None).adjust(row, tokens)
    return set(np.flatnonzero(np.isinf(row)).tolist())


def test_what_followed_before_is_barred():
    assert barred([1, 2, 3, 1, 2], size=3) == {3}
    assert barred([1, 2, 1, 3, 1], size=2) == {2, 3}
    assert barred([1, 2, 3, 1, 2], size=4) == set()
    assert barred([1]) == set()


@pytest.mark.parametrize("options", [{"size": 1}, {"size": "3"}, {"length": 3}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match="size of 2"):
        no_repeat_ngram(options, None)
