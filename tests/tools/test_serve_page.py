"""The server's page, used as a visitor does: images dropped on it in a headless Chromium."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import uvicorn
from browser import chromium, needs_browser, requests
from conftest import randomise
from PIL import Image
from runs import QUICK

from src.configs.config import load_cfg
from src.data.pixels import Pixels
from src.engine.checkpoint import save_tuned
from src.models.vit_backbones.backbone import HALF
from src.models.vit_models import build_model
from src.tools.serve.app import make_app
from src.tools.serve.batches import Batches
from src.tools.serve.limits import Limits
from src.tools.serve.models import Models

EVIL = "</script><img src=x onerror=alert(1)>&\"'"
DROP = """
const [canvas, data, done] = [document.createElement("canvas"), new DataTransfer(), arguments[1]];
canvas.toBlob((blob) => {
  data.items.add(new File([blob], arguments[0], {type: "image/png"}));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
  done();
});
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server of two models, and what stops it."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("linear", "lora"):
        cfg = load_cfg("", [*QUICK, "DATA.CROPSIZE", "32", "DEVICE", "cpu", "MODEL.TRANSFER_TYPE", name])
        model = build_model(cfg, 3)
        randomise(model)
        save_tuned(folder / name / "tuned.safetensors", model, cfg, [EVIL, "b", "c"], Pixels((32, 32), "none", *HALF))
    limits = Limits(upload=60_000, images=3)
    models = Models([folder], [], limits)
    for name in ("linear", "lora"):
        models.load(folder / name)
    with Batches(limits) as batches, ThreadPoolExecutor(1) as pool:
        app = make_app(models, limits, batches, pool, ["127.0.0.1"])
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.02)

        def stop():
            server.should_exit = True
            thread.join()

        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", stop
        stop()


@pytest.mark.browser
@needs_browser
def test_images_dropped_on_the_page_are_classified(server, tmp_path):
    address, stop = server
    with chromium(tmp_path / "profile") as driver:

        def wait_for(text):
            until = time.monotonic() + 30
            while text not in (status := driver.find_element("id", "status").text):
                assert time.monotonic() < until, status
                time.sleep(0.05)

        def all(selector):
            return [element.text for element in driver.find_elements("css selector", selector)]

        driver.get(address)
        until = time.monotonic() + 30
        while all("#models label") != ["linear", "lora"] and time.monotonic() < until:
            time.sleep(0.05)
        driver.execute_async_script(DROP, EVIL)
        wait_for("1 image in")
        assert all("article h2") == [EVIL]
        assert all("article h3") == ["linear", "lora"]
        assert sorted(all("article ol:last-child li span:first-of-type")) == sorted([EVIL, "b", "c"])
        assert driver.execute_script("return document.querySelector('article img').naturalWidth") == 300
        assert len(driver.find_elements("css selector", "article img")) == 1  # the picture, and none from a name

        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
        (tmp_path / "b.png").write_bytes(b"no image")
        driver.find_elements("css selector", "#models input")[1].click()
        driver.find_element("id", "files").send_keys(f"{tmp_path / 'a.png'}\n{tmp_path / 'b.png'}")
        wait_for("2 images in")
        assert all("article h2") == ["a.png", "b.png"]
        assert all("article h3") == []
        assert all("article .broken")[0].startswith("it is truncated or not in a supported format")

        # Eight files, three or 60,000 bytes to a request: one is larger than that, and the first request's are broken.
        sizes = {f"{i}.png": 0 for i in range(3)} | {"large.png": 80_000} | {f"{i}.png": 25_000 for i in (4, 5, 6)}
        sizes |= {"7.png": 30_000}
        picture = (tmp_path / "a.png").read_bytes()
        for i, (name, padding) in enumerate(sizes.items()):
            (tmp_path / name).write_bytes((b"no image" if i < 3 else picture) + bytes(padding))
        driver.find_element("id", "files").send_keys("\n".join(str(tmp_path / name) for name in sizes))
        wait_for("8 images in")
        assert driver.find_element("id", "status").text.endswith("not classified: 4")
        assert all("article h2") == list(sizes)
        reasons = all("article .broken")
        assert [reason.split(":")[0] for reason in reasons[:3]] == ["no image can be read"] * 3
        assert reasons[3:] == ["the file has 0.0764 MiB, and this server takes 0.0572 MiB at a time (--max-upload)"]
        assert len(driver.find_elements("css selector", "article img")) == 4
        (refused,) = driver.get_log("browser")  # the browser's own note of the 422
        assert "422" in refused["message"]

        asked = {url for url in requests(driver) if not url.startswith(("blob:", "data:"))}
        assert all_below(asked, address), asked
        assert driver.get_log("browser") == []
        shades = []
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            shades.append(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
        assert shades == ["rgb(255, 255, 255)", "rgb(21, 24, 28)"]

        stop()
        driver.execute_async_script(DROP, "late.png")
        wait_for("the server cannot be reached")


def all_below(addresses, root):
    return bool(addresses) and all(address.startswith(f"{root}/") for address in addresses)
