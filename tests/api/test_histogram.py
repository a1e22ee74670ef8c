"""GET /v1/events/histogram."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from .conftest import API, check_problem

PATH = "/v1/events/histogram"
START = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=20)


def moment(hours: float) -> str:
    """A time of the story as RFC 3339."""
    return f"{START + timedelta(hours=hours):%Y-%m-%dT%H:%M:%S}.000Z"


def histogram(api: API, token: str = "", **parameters: Any) -> dict[str, Any]:
    """The answer, which must succeed; and each of its counts is the sum of its tones."""
    named = {name.rstrip("_"): value for name, value in parameters.items()}
    answer = api.get(PATH, params=named, token=token)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert set(found) == {"interval", "buckets"}
    for bucket in found["buckets"]:
        assert set(bucket) == {"start", "count", "tones"}
        assert bucket["count"] == sum(bucket["tones"].values())
    return found


def counts(found: dict[str, Any]) -> list[int]:
    """The counts, in order."""
    return [bucket["count"] for bucket in found["buckets"]]


@pytest.fixture
def story(api: API) -> API:
    """Entries at noon and in the four hours after it: 1, 2, 0, 1 and 1 of them; and one of another organisation."""
    for hours, action in (
        (0.0, "domain.created"),
        (1.0, "domain.deleted"),
        (1.5, "domain.created"),
        (3.0, "settings.updated"),
        (4.5, "auth.logged_out"),
    ):
        api.record(action, timestamp=START + timedelta(hours=hours), user="alice", ip="192.168.1.77")
    api.record("domain.created", timestamp=START - timedelta(days=5), org="other")
    api.stored()
    return api


def test_entries_are_counted_by_hour_and_tone(story: API) -> None:
    """Without a range, the spans go from the first to the last entry of the caller's organisation."""
    assert histogram(story, buckets=5) == {
        "interval": "PT1H",
        "buckets": [
            {"start": moment(0), "count": 1, "tones": {"green": 1}},
            {"start": moment(1), "count": 2, "tones": {"green": 1, "red": 1}},
            {"start": moment(2), "count": 0, "tones": {}},
            {"start": moment(3), "count": 1, "tones": {"yellow": 1}},
            {"start": moment(4), "count": 1, "tones": {"accent": 1}},
        ],
    }
    other = histogram(story, story.token(org="other"))
    assert (other["interval"], counts(other)) == ("PT1S", [1])


def test_the_spans_are_those_of_the_range_asked_for(story: API) -> None:
    """With `from` and `to` the spans cover that range, far beyond the entries, also where there are none."""
    found = histogram(story, from_=moment(-24), to=moment(24), buckets=48)
    assert (found["interval"], len(found["buckets"]), found["buckets"][0]["start"]) == ("PT1H", 48, moment(-24))
    assert sum(counts(found)) == 5
    empty = histogram(story, from_=moment(100), to=moment(102), buckets=2)
    assert (empty["interval"], counts(empty)) == ("PT1H", [0, 0])
    wide = histogram(story, from_="0001-01-01", to="9999-12-31")
    assert sum(counts(wide)) == 5


def test_one_end_alone_may_be_given(story: API) -> None:
    """Where only one end is given the other is that of the entries; with nothing there, there is no span."""
    assert counts(histogram(story, from_=moment(1.25), buckets=4)) == [1, 0, 1, 1]
    assert counts(histogram(story, to=moment(1.25), buckets=2)) == [1, 1]
    assert histogram(story, from_=moment(100)) == {"interval": "PT1S", "buckets": []}


def test_entries_outside_the_range_are_not_in_the_outer_spans(story: API) -> None:
    """The first and the last span reach beyond the range; what lies there is not counted."""
    found = histogram(story, from_=moment(1.25), to=moment(3.0), buckets=2)
    assert (found["interval"], found["buckets"][0]["start"], counts(found)) == ("PT1H", moment(1), [1, 0])


@pytest.mark.parametrize(
    ("parameters", "number"),
    [
        ({"action": "domain.created"}, 2),
        ({"category": ["domains", "settings"]}, 4),
        ({"q": "deleted"}, 1),
        ({"ip": "192.168.1.xxx"}, 5),
        ({"user": "bob"}, 0),
        ({"sort": "action"}, 5),
    ],
)
def test_the_filters_are_those_of_the_list(story: API, parameters: dict[str, Any], number: int) -> None:
    """All spans together have as many entries as the list has in total."""
    assert sum(counts(histogram(story, **parameters))) == number == story.list(**parameters)["total"]


def test_days_are_those_of_the_time_zone(story: API) -> None:
    """With a time zone, spans of a day begin at its midnight."""
    first = f"{START - timedelta(days=3):%Y-%m-%d}"
    last = f"{START + timedelta(days=3):%Y-%m-%d}"
    found = histogram(story, from_=first, to=last, tz="Asia/Kathmandu", buckets=7)
    assert found["interval"] == "P1D"
    assert {bucket["start"][11:] for bucket in found["buckets"]} == {"18:15:00.000Z"}
    assert counts(found) == [0, 0, 0, 5, 0, 0, 0]


def test_an_empty_log_has_no_spans(api: API) -> None:
    """Before the first entry there is nothing to count."""
    assert histogram(api) == {"interval": "PT1S", "buckets": []}


@pytest.mark.parametrize("name", ["page", "cursor", "page_size", "colour"])
def test_what_a_histogram_does_not_take(memory_api: API, name: str) -> None:
    """Pages have no place here; each wrong parameter is named, `buckets` among them."""
    wrong = {name: "1", "buckets": "0", "ip": "10.0.0.5"}
    body = check_problem(memory_api.get(PATH, params=wrong), 422, "invalid-query")
    assert {error["parameter"] for error in body["errors"]} == set(wrong)
