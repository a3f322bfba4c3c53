"""The server of the playground: who can reach it, what it refuses, and what it answers; no browser."""

import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from unfool.cli import main
from unfool.core.errors import OutputError, SpecError
from unfool.playground import server
from unfool.playground.check import PlaygroundError, ask_once
from unfool.playground.page import api_attack
from unfool.playground.pictures import MOST_UPLOADED
from unfool.playground.server import chosen_port, serving


@pytest.fixture(scope="module")
def url(play):
    with serving(play, port=0) as address:
        yield address.rstrip("/")


def test_it_answers_this_machine_alone_and_loads_nothing_from_elsewhere(url):
    assert url.startswith("http://127.0.0.1:")
    answer = httpx.get(url)
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert httpx.get(url, headers={"host": "elsewhere.example"}).status_code == 400
    config = httpx.get(f"{url}/config").json()
    assert not config["analytics_enabled"]
    assert config["footer_links"] == []


def test_it_answers_through_its_interface_and_two_at_once_get_their_own(url):
    answer = ask_once(url)
    assert answer.said.startswith("This image was a 0 (over 99 %); under 8/255 in linf the network sees a ")
    assert (answer.systems, answer.pictures) == (3, 10)

    def attacked(place: int) -> dict[str, object]:
        from gradio_client import Client

        client = Client(url, verbose=False, analytics_enabled=False, download_files=False)
        key = client.predict("zoo:digits", api_name="/load")["pictures"][place]
        return client.predict("zoo:digits", key, "linf", 16, 5, "", api_name="/attack")

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(attacked, (3, 5)))
    assert [each["clean"] for each in both] == ["3", "5"]
    assert all(each["fooled"] and each["distance"] == pytest.approx(16 / 255, abs=1e-5) for each in both)


def test_what_is_wrong_with_a_request_comes_back_in_one_line(url, capfd):
    from gradio_client import Client

    client = Client(url, verbose=False, analytics_enabled=False, download_files=False)
    with pytest.raises(Exception, match="unknown picture 'nope'; allowed: example-0") as caught:
        client.predict("zoo:digits", "nope", "linf", 8, 5, "", api_name="/attack")
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"norm": ["linf"]}, r"norm is \['linf'\], which is no text"),
        ({"eps": "8"}, "eps is '8'; give a finite number"),
        ({"steps": "ten"}, "steps is 'ten'; give a finite number"),
        ({"steps": float("nan")}, "steps is 'nan'; give a finite number"),
        ({"steps": 2.5}, "steps is 2.5; give a whole number"),
        ({"lender": {}}, "lender is {}, which is no text"),
    ],
)
def test_a_value_of_another_kind_is_refused(play, values, line):
    attack = {"system": "zoo:digits", "picture": "example-0", "norm": "linf", "eps": 8, "steps": 5, "lender": ""}
    with pytest.raises(SpecError, match=line):
        api_attack(play)(**attack | values)


def test_an_upload_beyond_the_bound_is_refused_before_it_is_read(url):
    files = {"files": ("large.png", bytes(MOST_UPLOADED + 1))}
    assert httpx.post(f"{url}/gradio_api/upload", files=files).status_code == 413


def test_a_port_in_use_is_told_from_a_wrong_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OutputError, match="in use or not allowed; give --port 0"):
            chosen_port("127.0.0.1", taken.getsockname()[1])
    assert chosen_port("127.0.0.1", 0) > 0
    with pytest.raises(SpecError, match="port 70000 is not allowed"):
        chosen_port("127.0.0.1", 70000)
    with pytest.raises(SpecError, match=r"host 'no\.host\.example' is not known"):
        chosen_port("no.host.example", 0)
    for host in ("a..b", "a" * 70, "\0"):
        with pytest.raises(SpecError, match=r"is not known .*give 127\.0\.0\.1"):
            chosen_port(host, 0)


def test_the_check_fails_in_one_line_where_nothing_answers():
    with pytest.raises(PlaygroundError, match="did not answer") as caught:
        ask_once("http://127.0.0.1:9")
    assert "\n" not in str(caught.value)


def test_without_gradio_a_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    assert main(["play", "--check"]) == 2
    assert "pip install 'unfool[playground]'" in capsys.readouterr().err
    assert main(["play", "--check", "--static", "page.html"]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_a_static_page_that_would_not_be_one_is_refused(tmp_path, capsys):
    assert main(["play", "--static", str(tmp_path / "page.txt")]) == 2
    assert "give a name that ends in .html" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
