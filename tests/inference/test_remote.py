"""Images at addresses, from a server of this process."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from fldet.errors import DataError
from fldet.inference import remote
from fldet.inference.images import given_images, is_one
from fldet.inference.predict import predict
from fldet.inference.remote import fetch_image
from fldet.inference.sources import find_items

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


class Answers(BaseHTTPRequestHandler):
    """An image, a page, an error, a redirection, and answers that are too slow or too short."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/missing.png":
            self.send_error(404, "Not Found")
            return
        if path == "/moved.png":
            self.send_response(302)
            self.send_header("Location", "/a.png")
            self.end_headers()
            return
        self.send_response(200)
        body = cv2.imencode(".png", PIXELS)[1].tobytes()
        if path == "/page":
            body = b"<html>hello</html>"
        self.send_header("Content-Length", str(len(body) + 10 * (path == "/short.png")))
        self.end_headers()
        for start in range(0, len(body), 500):
            self.wfile.write(body[start : start + 500])
            if path == "/slow.png":
                time.sleep(0.05)

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()


@pytest.mark.parametrize("path", ["/a.png", "/a.png?size=[1]*", "/moved.png"])
def test_an_image(server, path):
    assert np.array_equal(fetch_image(server + path), PIXELS)
    (item,) = find_items(server + path)
    assert np.array_equal(item.read(), PIXELS)
    assert item.picture == f"{path[1:].partition('?')[0]}.jpg"
    assert is_one(server + path)
    (given,) = given_images(server + path)
    assert np.array_equal(given.content, PIXELS)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/missing.png", "404 Not Found"),
        ("/page", "not an image"),
        ("/short.png", "ended after"),
    ],
)
def test_what_is_no_image_is_named(server, path, words):
    with pytest.raises(DataError, match=words) as error:
        fetch_image(server + path)
    assert server + path in error.value.message


def test_bounds_of_size_and_time(server, monkeypatch):
    monkeypatch.setattr(remote, "MOST", 1000)
    with pytest.raises(DataError, match="has more than 0 MiB"):
        fetch_image(f"{server}/a.png")
    monkeypatch.setattr(remote, "MOST", 10**6)
    monkeypatch.setattr(remote, "_SECONDS", 0.1)
    with pytest.raises(DataError, match="took more than 0 s"):
        fetch_image(f"{server}/slow.png")


def test_no_server():
    with pytest.raises(DataError, match=r"cannot fetch http://127\.0\.0\.1:9/a\.png"):
        fetch_image("http://127.0.0.1:9/a.png")


def test_predicting_on_an_address(tiny_run, server, tmp_path):
    source = f"{server}/a.png"
    result = predict(tiny_run[1], source, tmp_path / "out", device="cpu", score_thr=0.05)
    assert (result.images, result.skipped) == (1, 0)
    assert result.detections[0]["file"] == source
    assert (tmp_path / "out" / "pictures" / "a.png.jpg").is_file()
    missing = predict(tiny_run[1], f"{server}/missing.png", tmp_path / "no", device="cpu")
    assert missing.skipped == 1


def test_a_camera_that_is_not_there():
    with pytest.raises(DataError, match="camera:99"):
        find_items("camera:99")
