"""Runs go to a hub and come back the same; a hostile repository is refused in one line, and nothing of it is run."""

import pytest
import torch
from hub_server import COMMIT, serving

from unfool import load_network, open_run, zoo
from unfool.core.errors import OutputError, SpecError, WeightsError
from unfool.models.zoo import hub as exchange

NEEDED = ("config.yaml", "weights.safetensors")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    with serving() as server:
        monkeypatch.setenv("UNFOOL_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield server


@pytest.fixture
def filled(hub):
    for name in NEEDED:
        hub.files[name] = (zoo.folder("digits") / name).read_bytes()
    return hub


def test_a_run_comes_from_the_hub_and_is_fetched_once(filled):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    run = open_run("hf:me/net")
    with torch.no_grad():
        assert torch.equal(run.network(images), zoo.load("digits")(images))
    count = len([path for _, path, _ in filled.requests if "/resolve/" in path])
    assert count == len(NEEDED)
    load_network("hf:me/net")
    assert len([path for _, path, _ in filled.requests if "/resolve/" in path]) == count


def test_what_was_fetched_last_serves_without_a_hub(filled, monkeypatch):
    from huggingface_hub import constants

    folder = exchange.download("me/net")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert exchange.download("me/net") == folder
    with pytest.raises(WeightsError, match="hub cannot be asked for me/other"):
        exchange.download("me/other")


def test_only_known_files_are_fetched_and_only_into_their_own_places(filled, tmp_path):
    filled.files["../../escaped.txt"] = filled.files["pytorch_model.bin"] = filled.files["x/card.json"] = b"\x80\x04."
    folder = exchange.download("me/net")
    assert sorted(path.name for path in folder.iterdir()) == sorted(NEEDED)
    assert folder.parts[-3:] == ("models", "me--net", COMMIT)
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not [path for _, path, _ in filled.requests if "pytorch_model" in path]


def test_weights_that_are_a_pickle_are_refused(filled):
    filled.files["weights.safetensors"] = b"\x80\x04\x95" + b"x" * 200
    with pytest.raises(WeightsError, match="pickle"):
        open_run("hf:me/net")


def test_a_repository_without_a_run_is_named(hub):
    hub.files["pytorch_model.bin"] = b"\x80\x04."
    with pytest.raises(WeightsError, match=r"holds no run of unfool .*--model hf:me/net"):
        exchange.download("me/net")


def test_a_file_that_is_too_large_is_refused_before_and_while_it_is_fetched(filled, monkeypatch):
    filled.sizes["card.json"] = 1 << 40
    with pytest.raises(WeightsError, match="more than the 1,048,576 allowed"):
        exchange.download("me/net")
    filled.sizes = {"card.json": 10}
    filled.endless.add("card.json")
    with pytest.raises(WeightsError, match="sends more than the 1,048,576 bytes allowed"):
        exchange.download("me/net")


def test_files_that_come_too_slowly_are_given_up(filled, monkeypatch):
    filled.sizes["weights.safetensors"] = 10
    filled.endless.add("weights.safetensors")
    monkeypatch.setattr(exchange, "SECONDS", -1.0)
    with pytest.raises(WeightsError, match="longer than the 1 seconds allowed"):
        exchange.download("me/net")


def test_a_commit_that_is_a_path_is_refused(filled):
    filled.commit = "../../../etc"
    with pytest.raises(WeightsError, match="names no commit"):
        exchange.download("me/net")


def test_a_redirection_to_another_host_gets_no_token(filled):
    with serving() as other:
        other.files = dict(filled.files)
        other.address = other.address.replace("127.0.0.1", "localhost")
        path = f"/me/net/resolve/{COMMIT}/weights.safetensors"
        filled.elsewhere["weights.safetensors"] = other.address + path
        exchange.download("me/net")
        ((_, asked_path, token),) = other.requests
    assert (asked_path, token) == (path, None)
    assert {token for _, path, token in filled.requests if "/resolve/" in path} == {"Bearer hf_secret"}


@pytest.mark.parametrize("name", ["net", "a/b/c", "../net", "me/..", "me/", "-x/y", "me/n t", "https://x/y"])
def test_what_is_no_name_is_refused_before_anything_is_asked(hub, name):
    with pytest.raises(SpecError, match="write OWNER/NAME"):
        open_run(f"hf:{name}")
    assert hub.requests == []


def test_a_missing_repository_is_one_line(hub):
    hub.exists = False
    with pytest.raises(WeightsError, match="no public model me/net"):
        exchange.download("me/net")


def test_a_run_goes_to_the_hub_with_its_card_and_comes_back(hub, cli, tmp_path):
    pushed = cli("push", "zoo:digits", "me/net", "--private")
    assert (pushed.code, pushed.err) == (0, "")
    assert pushed.out.endswith("next: unfool verify hf:me/net\n")
    assert hub.private is True
    assert sorted(hub.files) == sorted(exchange.FILES)
    readme = hub.files["README.md"].decode()
    assert readme.startswith("---\nlicense: mit\n")
    assert "unfool verify hf:me/net" in readme
    again = cli("verify", "hf:me/net", "--images", "0")
    assert again.code == 0
    assert again.out.splitlines()[-1].startswith("card of net: holds")


def test_a_hub_that_cannot_be_written_is_one_line(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OutputError, match=r"cannot write hf:me/net .*--dir"):
        exchange.upload(zoo.folder("digits"), "me/net")


def test_a_file_that_breaks_off_leaves_nothing(filled, tmp_path):
    filled.short.add("weights.safetensors")
    with pytest.raises(WeightsError, match="broke off after 10 bytes"):
        exchange.download("me/net")
    assert not list(tmp_path.rglob("weights.safetensors"))
