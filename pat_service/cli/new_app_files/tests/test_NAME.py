"""App TITLE: Ana opens it and sends its form."""

from pat_service.testing import OpenApp

pytest_plugins = ["pat_service.testing"]


def test_ana_counts_the_letters_of_a_text(open_app: OpenApp) -> None:
    frame = open_app("NAME", name="Ana")
    assert "Hello, Ana" in frame.first_page.text
    assert "5 characters" in frame.submit("count", {"text": "Hello"}).text


def test_an_empty_text_is_refused(open_app: OpenApp) -> None:
    answer = open_app("NAME").submit("count", {"text": ""})
    assert answer.status_code == 422
    assert "Write 1 to 100 characters." in answer.text


def test_a_builder_gets_the_attributes_of_the_mint(open_app: OpenApp) -> None:
    frame = open_app("NAME", name="Ben", role="builder", attributes={"region": "north"})
    assert frame.data("me.json").json == {"name": "Ben", "role": "builder", "attributes": {"region": "north"}}
