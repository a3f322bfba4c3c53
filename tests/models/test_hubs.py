"""Classifiers by the names of hubs: from a local hub, from its cache, and refused in one line where there is none."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from unfool import adapt
from unfool.core.errors import SpecError

COMMIT = "0" * 40
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What save_pretrained writes of a tiny classifier."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 4], depths=[1, 1], layer_type="basic", num_labels=4
    )
    transformers.AutoModelForImageClassification.from_config(config).eval().save_pretrained(folder)
    processor = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture
def hub(saved, tmp_path, monkeypatch):
    """A hub on this machine that has one model, me/net, and an empty cache; gives the paths that were asked for."""
    seen = []

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *words): ...

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = self.path.partition("?")[0]
            seen.append(path)
            file = saved / path.rpartition("/")[2]
            if "me/net" not in path:
                return self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
            if path.startswith("/api/"):
                return self.send(200, json.dumps({"id": "me/net", "sha": COMMIT, "siblings": []}).encode(), {})
            if not file.is_file():
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return self.send(200, file.read_bytes(), {"ETag": f'"{file.name}"', "X-Repo-Commit": COMMIT})

        def send(self, code, body, headers):
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path / "cache")
    yield seen
    server.shutdown()


def use(monkeypatch, endpoint, cache=None, offline=False):
    import huggingface_hub
    from transformers.utils import hub as of_transformers

    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    if cache is not None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(of_transformers.constants, "HF_HUB_CACHE", str(cache))


def test_a_model_of_the_hub_and_then_of_its_cache(saved, hub, monkeypatch):
    model = adapt("hf:me/net")
    torch.testing.assert_close(model(IMAGES), adapt(f"hf:{saved}")(IMAGES))
    assert (model.size, model.normalises) == (16, True)
    assert any(path.endswith("config.json") for path in hub)
    before = len(hub)
    use(monkeypatch, "http://127.0.0.1:9", offline=True)
    torch.testing.assert_close(adapt("hf:me/net")(IMAGES), model(IMAGES))
    use(monkeypatch, "http://127.0.0.1:9")
    torch.testing.assert_close(adapt("hf:me/net")(IMAGES), model(IMAGES))
    assert len(hub) == before


def test_what_cannot_be_had_is_one_line(hub, monkeypatch):
    for settings, words in (
        ({}, "the hub has no public model of that name"),
        ({"offline": True}, "HF_HUB_OFFLINE is set"),
        ({"endpoint": "http://127.0.0.1:9"}, "the hub cannot be reached"),
    ):
        if settings:
            use(monkeypatch, settings.get("endpoint", "http://127.0.0.1:9"), offline="offline" in settings)
        with pytest.raises(SpecError, match=rf"hf:you/none cannot be had: {words}.*not in the cache; give hf:FOLDER"):
            adapt("hf:you/none")


def test_a_folder_of_something_else_is_one_line(saved, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SpecError, match="cannot be had: ValueError: Unrecognized configuration"):
        adapt(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("library", "name", "near"), [("timm", "resnet1", "resnet"), ("torchvision", "resnt18", "resnet18")]
)
def test_names_of_no_model(library, name, near):
    try:
        __import__(library + ".models")
    except Exception as error:
        pytest.skip(f"{library} cannot be imported ({type(error).__name__})")
    with pytest.raises(SpecError, match=rf"{library} has no classifier '{name}'; did you mean 'resnet18'"):
        adapt(f"{library}:{name}")


def test_how_a_library_is_installed_beside_this_torch():
    try:
        import torchvision  # noqa: F401
    except Exception:
        with pytest.raises(SpecError, match=r"pip install --no-deps 'torchvision==0.\d+.\*'.*goes with torch"):
            adapt("torchvision:resnet18")
    else:
        pytest.skip("torchvision is installed")
