"""A model server: trains on iris at start and answers over HTTP."""

import http.server
import json
import os
import signal
import sys
import urllib.parse

from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

iris = load_iris()
model = RandomForestClassifier(n_estimators=20, random_state=0).fit(iris.data, iris.target)
print("trained on", len(iris.data), "flowers of iris")
asked = 0


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global asked
        url = urllib.parse.urlparse(self.path)
        if url.path == "/healthz":
            return self.answer({"ready": True})
        measures = [float(x) for x in urllib.parse.parse_qs(url.query)["x"][0].split(",")]
        species = iris.target_names[model.predict([measures])[0]]
        asked += 1
        with open("/data/asked", "a") as f:
            print(*measures, species, file=f)
        self.answer({"species": str(species)})

    def answer(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def stop(*_):
    print("asked", asked, "times")
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
http.server.HTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
