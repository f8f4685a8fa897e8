"""``vitune serve``: answers are those of ``vitune predict``, whoever asks for what at the same time."""

import asyncio
import io
import json
import os
import re
import shutil
import signal
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from tempfile import SpooledTemporaryFile

import numpy as np
import pytest
import torch
from conftest import randomise
from PIL import Image
from runs import QUICK
from starlette.testclient import TestClient

from src.configs.config import load_cfg
from src.data.pixels import Pixels
from src.engine.checkpoint import save_tuned
from src.models.copies import share
from src.models.vit_backbones.backbone import HALF
from src.models.vit_models import build_model
from src.tools.finished.run import open_run
from src.tools.predict.work import predictions
from src.tools.serve import __main__ as command
from src.tools.serve import batches as batches_module
from src.tools.serve.app import make_app
from src.tools.serve.batches import Batches
from src.tools.serve.folders import runs_of
from src.tools.serve.limits import Limits
from src.tools.serve.models import Models
from src.tools.serve.work import load_all

# Name: settings. The first three share the network's first blocks; the last has a loss and pixels of its own.
RUNS = {
    "linear": ["MODEL.TRANSFER_TYPE", "linear"],
    "partial": ["MODEL.TRANSFER_TYPE", "partial-1"],
    "lora": ["MODEL.TRANSFER_TYPE", "lora"],
    "prompt": ["MODEL.TRANSFER_TYPE", "prompt", "FREQFIT", "freqfit", "SOLVER.LOSS", "sigmoid"],
}
EVIL = "</script><img src=x onerror=alert(1)>\udcff"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the runs, had they learned something random, and beside it a run that is not served."""
    folder = tmp_path_factory.mktemp("serve")
    for name, pairs in {**RUNS, "../elsewhere": RUNS["linear"]}.items():
        cfg = load_cfg("", [*QUICK, "DATA.CROPSIZE", "32", "DEVICE", "cpu", *pairs])
        model = build_model(cfg, 7).eval()
        randomise(model, 0.3)
        own = dict(decoder="tf", resize="crop") if name == "prompt" else {}
        pixels = Pixels((32, 32), "none", *HALF, interpolation="bicubic", **own)
        path = folder / "runs" / name / "tuned.safetensors"
        save_tuned(path, model, cfg, [EVIL, *(f"{name[-3:]} {i}" for i in range(6))], pixels)
    return folder / "runs"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i, mode in enumerate(("RGB", "L", "CMYK", "RGB")):
        pixels = random.integers(0, 256, (30 + 9 * i, 70 - 9 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{i}.jpg")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def expected(runs, files):
    """{run: {file: (probability of each class)}} as ``vitune predict`` has it."""
    found = {}
    for name in RUNS:
        broken = {}
        results = predictions(open_run(runs / name), [str(file) for file in files], 7, 64, broken)
        found[name] = {os.path.basename(one.file): one.probabilities.tolist() for one in results}
        assert not broken
    return found


@pytest.fixture(scope="module")
def loaded(runs):
    models = Models([runs], ["DEVICE", "cpu"], Limits())
    return {name: models.load(runs / name) for name in RUNS}


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def client(runs, loaded, pool, request):
    """A client of a server with all runs; a test may set its limits, and the hosts it answers for."""
    own = dict(getattr(request, "param", {}))
    hosts, limits = own.pop("hosts", ()), Limits(**own)
    models = Models([runs], ["DEVICE", "cpu"], limits)
    models._loaded |= loaded
    with Batches(limits) as batches:
        yield TestClient(make_app(models, limits, batches, pool, hosts), raise_server_exceptions=False)


def limited(**limits):
    return pytest.mark.parametrize("client", [limits], indirect=True)


def upload(*files):
    return [("images", (file.name, file.read_bytes())) for file in files]


def check(response, expected, names, files):
    assert response.status_code == 200, response.text
    content = response.json()
    assert content["broken"] == []
    assert [one["file"] for one in content["predictions"]] == [file.name for file in files]
    for prediction in content["predictions"]:
        assert [one["model"] for one in prediction["answers"]] == list(names)
        for answer in prediction["answers"]:
            wanted = torch.tensor(expected[answer["model"]][prediction["file"]])
            ranked = [(one["label"], one["probability"]) for one in answer["top"]]
            assert [label for label, _ in ranked] == wanted.argsort(descending=True).tolist()
            assert [value for _, value in ranked] == pytest.approx(sorted(wanted.tolist(), reverse=True), abs=1e-5)
            assert (answer["label"], answer["probability"]) == ranked[0]


def test_models_share_the_memory_of_their_backbone(client, loaded, files):
    """Also after they have answered; what a model trained is its own."""
    assert client.post("/predict", files=upload(files[0])).status_code == 200
    vits = {name: dict(served.tuned.model.vit.named_parameters()) for name, served in loaded.items()}
    for name, param in vits["linear"].items():
        for other in ("lora", "prompt"):
            assert share(param, vits[other][name]), name
        assert share(param, vits["partial"][name]) == (not name.startswith(("blocks.3.", "norm."))), name


def test_every_model_answers_what_predict_says(client, files, expected):
    check(client.post("/predict?top=7", files=upload(*files)), expected, RUNS, files)
    some = client.post("/predict?top=7&model=lora&model=linear&model=lora", files=upload(files[1]))
    check(some, expected, ["lora", "linear"], files[1:2])
    assert len(client.post("/predict?top=2", files=upload(files[0])).json()["predictions"][0]["answers"][0]["top"]) == 2


@limited(window=0.3)
def test_requests_at_the_same_time_are_computed_together(client, files, expected, monkeypatch):
    """Each has other images and models; what linear probing and ``partial`` share is computed once for all of them."""
    honest, sizes, blocks = batches_module.compute, [], []

    def compute(images, asked):
        sizes.append((len(images), sorted((served.name, rows.tolist()) for served, rows in asked)))
        hooks = [
            served.tuned.model.vit.blocks[0].register_forward_hook(lambda *_: blocks.append(1)) for served, _ in asked
        ]
        try:
            return honest(images, asked)
        finally:
            for hook in hooks:
                hook.remove()

    monkeypatch.setattr(batches_module, "compute", compute)
    asked = [(["linear", "partial"], files[:2]), (["partial"], files[1:]), (["linear"], files[3:]), (["lora"], files)]
    for _ in range(2):  # the first time, the stages are compared with the whole models
        sizes.clear()
        blocks.clear()
        with ThreadPoolExecutor(len(asked)) as together:
            responses = [
                together.submit(client.post, "/predict", params={"model": names, "top": 7}, files=upload(*some))
                for names, some in asked
            ]
        for (names, some), response in zip(asked, responses, strict=True):
            check(response.result(), expected, names, some)
    ((count, models),) = sizes
    assert count == 10
    assert sorted((name, len(rows)) for name, rows in models) == [("linear", 3), ("lora", 4), ("partial", 5)]
    assert len(blocks) == 2  # one for LoRA, and one for the two others


def test_models_come_and_go(client, runs, files, expected):
    assert [one["name"] for one in client.get("/models").json()["models"]] == list(RUNS)
    assert client.get("/health").json() == {"status": "ok", "models": 4, "waiting": 0}
    assert client.delete("/models/lora").status_code == 204
    assert client.delete("/models/lora").json()["where"] == "path.name"
    assert client.post("/predict?model=lora", files=upload(files[0])).status_code == 404
    made = client.post("/models", json={"folder": "lora", "name": "again"})
    assert made.status_code == 201
    about = made.json()
    assert (about["name"], about["methods"], about["classes"][0]) == ("again", "lora", EVIL)
    answer = client.post("/predict?model=again&top=7", files=upload(files[0])).json()["predictions"][0]["answers"][0]
    assert max(expected["lora"]["0.jpg"]) == pytest.approx(answer["probability"], abs=1e-5)
    assert client.post("/models", json={"folder": "linear", "name": "again"}).status_code == 409
    assert client.post("/models", json={"folder": str(runs / "lora")}).json()["name"] == "lora"
    for name in (*RUNS, "again"):
        client.delete(f"/models/{name}")
    assert client.post("/predict", files=upload(files[0])).status_code == 503


def test_only_runs_in_the_folders_named_at_start_are_loaded(client, runs):
    (runs / "link").symlink_to(runs / "../elsewhere")
    (runs / "linked").mkdir()
    (runs / "linked" / "tuned.safetensors").symlink_to(runs / "../elsewhere/tuned.safetensors")
    folders = ["../elsewhere", "lora/../../elsewhere", "link", "linked", "no", "\0", "x" * 4000, "/", "~", "."]
    for folder in [*folders, str(runs / "../elsewhere"), str(runs.parent.resolve() / "elsewhere")]:
        answer = client.post("/models", json={"folder": folder})
        assert answer.status_code == 404, folder
        assert answer.json()["what"] == "there is no such run in the folders that the server was started with"
    (runs / "link").unlink()
    shutil.rmtree(runs / "linked")


@limited(models=4)
def test_broken_runs_and_too_many_are_refused(client, runs):
    assert "is the limit" in client.post("/models", json={"folder": "lora", "name": "x"}).json()["what"]
    client.delete("/models/lora")
    broken = runs / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "tuned.safetensors").write_bytes(b"nothing")
    answer = client.post("/models", json={"folder": "broken"})
    assert (answer.status_code, answer.json()["where"]) == (422, "body.folder")
    assert client.get("/health").json()["models"] == 3


def test_broken_images_are_named_and_the_others_answered(client, files):
    large = io.BytesIO()
    Image.new("1", (2**14, 2**13)).save(large, "PNG")
    sent = [*upload(files[0]), ("images", ("large.png", large.getvalue())), ("images", ("x.png", b"no image"))]
    content = client.post("/predict", files=[*sent, *upload(files[1])]).json()
    assert [one["index"] for one in content["predictions"]] == [0, 3]
    assert [(one["index"], one["file"]) for one in content["broken"]] == [(1, "large.png"), (2, "x.png")]
    assert "more than DATA.MAX_PIXELS" in content["broken"][0]["why"]
    alone = client.post("/predict", files=sent[1:])
    assert (alone.status_code, alone.json()["where"]) == (422, "body.images")
    assert "large.png: it has 16384 x 8192 pixels" in alone.json()["what"]


def test_what_would_be_ignored_is_refused(client, files):
    for ask, path in ((client.post, "/predict?tpo=3"), (client.get, "/models?tpo=3"), (client.delete, "/models/x?y=1")):
        answer = ask(path)
        assert (answer.status_code, answer.json()["where"]) == (422, "query"), path
    assert "'tpo'; did you mean top?" in client.post("/predict?tpo=3", files=upload(files[0])).json()["what"]
    assert client.get("/?from=a-link").status_code == 200
    text = client.post("/predict", files=[("images", (None, "hello"))])  # what -F images=hello sends
    assert (text.status_code, text.json()["what"]) == (400, "images must be files, and the form has a text")
    paths = client.get("/openapi.json").json()["paths"]
    assert all("422" in method["responses"] for path in paths.values() for method in path.values())


@limited(upload=5_000_000, images=3)
def test_uploads_are_bounded_and_stay_in_memory(client, files, monkeypatch):
    def rollover(self):
        raise AssertionError("an upload is written to the disk")

    monkeypatch.setattr(SpooledTemporaryFile, "rollover", rollover)
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "BMP")
    large = ("images", ("noise.bmp", file.getvalue()))
    assert client.post("/predict", files=[large]).status_code == 200
    assert client.post("/predict", files=[large, large]).status_code == 413
    body = client.build_request("POST", "/predict", files=[large, large])
    kind = {"content-type": body.headers["content-type"]}
    assert client.post("/predict", content=iter([body.read()]), headers=kind).status_code == 413  # of unknown length
    assert "more than 3 images" in client.post("/predict", files=upload(*files)).json()["what"]
    assert (
        client.post("/models", content=b" " * 70_000, headers={"content-type": "application/json"}).status_code == 413
    )


@limited(waiting=2, seconds=0.4)
def test_a_busy_server_turns_away_and_gives_up(client, files, monkeypatch):
    go_on, honest = threading.Event(), batches_module.compute

    def compute(*args):
        go_on.wait()
        return honest(*args)

    monkeypatch.setattr(batches_module, "compute", compute)
    with ThreadPoolExecutor(2) as together:
        slow = [together.submit(client.post, "/predict", files=upload(files[0])) for _ in range(2)]
        while client.get("/health").json()["waiting"] < 2:
            time.sleep(0.01)
        turned_away = client.post("/predict", files=upload(files[0]))
    assert [one.result().status_code for one in slow] == [504, 504]
    assert (turned_away.status_code, turned_away.headers["retry-after"]) == (503, "1")
    go_on.set()
    assert client.get("/health").json()["waiting"] == 0

    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert upload_slowly(client, kind) == 408
    assert upload_slowly(client, kind, leaves=True) == 400


def upload_slowly(client, headers, leaves=False):
    """The status for a body that does not end, from the application itself: the client for tests reads bodies first."""
    sent = []

    async def receive():
        await asyncio.sleep(0.05)
        if leaves:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"\r\n", "more_body": True}

    async def send(message):
        sent.append(message)

    fields = [(name.encode(), value.encode()) for name, value in {"host": "x", **headers}.items()]
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": fields}
    asyncio.run(client.app(scope, receive, send))
    return sent[0]["status"]


def test_a_failure_is_an_answer_and_the_next_request_is_served(client, files, monkeypatch):
    def compute(*args):
        raise RuntimeError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(batches_module, "compute", compute)
        answer = client.post("/predict", files=upload(files[0]))
    assert (answer.status_code, answer.json()["what"]) == (500, "the server failed")
    assert client.post("/predict", files=upload(files[0])).status_code == 200


@limited(hosts=["127.0.0.1", "[::1]"])
def test_requests_for_other_hosts_and_from_other_sites_are_refused(client):
    for host, status in {"127.0.0.1:8000": 200, "[::1]:8000": 200, "evil.example": 421, "": 421}.items():
        answer = client.get("/models", headers={"host": host})
        assert answer.status_code == status
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    own = {"host": "127.0.0.1"}
    assert client.get("/models", headers={**own, "sec-fetch-site": "cross-site"}).status_code == 403
    assert client.get("/models", headers={**own, "sec-fetch-site": "same-origin"}).status_code == 200
    text = {**own, "content-type": "text/plain"}  # which other sites may send without asking
    assert client.post("/models", content='{"folder": "lora"}', headers=text).status_code == 422
    assert client.post("/predict", content="x", headers=text).status_code == 415
    assert client.options("/models", headers=own).headers["allow"] == "GET, POST"


def test_what_openapi_allows_is_answered_as_it_says(client):
    """Schemathesis: made-up requests, valid and not; no failure, no status or body that is not described."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st
    from schemathesis.checks import CHECKS

    image = io.BytesIO()
    Image.new("RGB", (9, 5)).save(image, "PNG")
    schemathesis.openapi.format("binary", st.one_of(st.just(image.getvalue()), st.binary(max_size=99)))
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    # An image that cannot be read is refused, though its bytes are what the schema describes.
    checks = [one for one in CHECKS.get_all() if one.__name__ != "positive_data_acceptance"]
    few = settings(
        max_examples=8, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    statuses = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        takes_something = bool(operation.query or operation.path_parameters or operation.body)
        for mode in list(schemathesis.GenerationMode)[: 1 + takes_something]:

            @seed(0)
            @few
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case):
                response = case.call()
                statuses.add(response.status_code)
                case.validate_response(response, checks=checks)

            ask()
    assert statuses >= {200, 404, 422}
    assert not {status for status in statuses if status >= 500}


def test_of_a_fit_only_its_model_is_served(runs, tmp_path):
    for part in ("model", "trials/1"):
        (tmp_path / "mine" / part).mkdir(parents=True)
        shutil.copy(runs / "linear" / "tuned.safetensors", tmp_path / "mine" / part)
    (tmp_path / "mine" / "fit.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "mine"):
        ((name, run),), _ = runs_of([str(folder)])
        models = Models([folder], ["DEVICE", "cpu"], Limits())
        assert (run, models.load(run, name).name) == (tmp_path / "mine" / "model", "mine")
    assert models.find(".") == run


def test_a_run_that_cannot_be_loaded_is_left_out(runs, caplog):
    """If another can be; the others' reasons are told in both cases."""
    shelf = Models([runs], ["DEVICE", "cpu"], Limits())
    nowhere = runs / "not there"
    load_all(shelf, [("", nowhere), ("", runs / "linear")])
    assert [served.name for served in shelf.all()] == ["linear"]
    assert f"{nowhere} is left out: {nowhere} is missing" in caplog.text
    caplog.clear()
    with pytest.raises(FileNotFoundError, match="not there"):
        load_all(Models([runs], [], Limits()), [("", nowhere), ("", runs / "nor there")])
    assert "nor there is left out" in caplog.text


def test_a_signal_ends_the_command(runs, capsys):
    done = {}

    def use():
        text = ""
        while not (found := re.search(r" at (http://.*:\d+) ", text)):
            text += capsys.readouterr().out
            time.sleep(0.05)
        with urllib.request.urlopen(f"{found[1]}/health", timeout=30) as answer:
            done.update(json.load(answer), said=text)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=use)
    thread.start()
    assert command.main([f"a={runs / 'linear'}", f"b={runs / 'lora'}", "--port", "0", "DEVICE", "cpu"]) == 0
    thread.join()
    assert done["models"] == 2
    assert "loaded b from" in done["said"]
    assert "stopped by SIGTERM" in capsys.readouterr().out


def test_what_is_not_installed_is_named(runs, capsys, monkeypatch):
    monkeypatch.setattr(command, "NEEDS", ("fastapi", "no_such_package"))
    assert command.main([str(runs)]) == 2
    assert "needs no_such_package: pip install '" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["nowhere"], 2, "nowhere is missing"),
        (["RUNS/.."], 2, "--max-models is 3"),
        (["a=RUNS/lora", "a=RUNS/linear"], 2, "two runs are called a"),
        (["a=RUNS"], 2, "one name is given"),
        (["RUNS", "--max-upload", "0"], 2, "upload 0: it must be at least 1"),
        (["RUNS", "--timeout", "nan"], 2, "timeout nan"),
        (["RUNS/lora", "--port", "70000"], 2, "--port 70000"),
        (["RUNS/lora", "--host", "192.0.2.1"], 1, "choose another --port, or --host"),
        (["RUNS/lora", "--port", "0", "DEVICEE", "cpu"], 2, "did you mean DEVICE"),
    ],
)
def test_mistakes_are_told_before_anything_is_served(runs, args, status, says, capsys):
    args = [arg.replace("RUNS", str(runs)) for arg in args]
    assert command.main([*args, "--max-models", "3"]) == status
    assert says in capsys.readouterr().err
