"""The prediction of a report is that of the predictor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from compressor.report.predicted import Prediction


def test_it_reads_what_the_predictor_wrote(prediction: Callable[..., Prediction]) -> None:
    predict = pytest.importorskip("profiles.predict", exc_type=ImportError)
    found = prediction(3.0, doubts=("It is larger than all that was measured.",))
    theirs = predict.Prediction.model_validate(found.model_dump())
    assert Prediction.model_validate(theirs.to_dict()) == found


def test_it_is_never_a_measurement(prediction: Callable[..., Prediction]) -> None:
    for wrong in ({"origin": "measured"}, {"latency_p50_ms": 0.0}, {"interval_confidence": 1.0}, {"count": 3000}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            prediction(3.0, **wrong)
