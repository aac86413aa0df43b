"""Serves a compiled classifier over HTTP: POST the pixels as JSON, get the class and how probable it is. Needs `graphopt-runtime` and numpy alone.

python service.py digits.gopt --port 8000
curl -d "[[[[0, 16, ...]]]]" localhost:8000
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

import graphopt_runtime


class Handler(BaseHTTPRequestHandler):
    """Answers one request; many may run at the same time on one model."""

    model: graphopt_runtime.CompiledModel

    def do_POST(self) -> None:
        try:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            (probabilities,) = self.model(np.asarray(json.loads(body), np.float32))
        except (ValueError, TypeError, graphopt_runtime.GraphoptError) as error:
            self.answer(400, {"error": str(error)})
            return
        best = int(probabilities.argmax())
        self.answer(200, {"class": best, "probability": float(probabilities.flat[best])})

    def answer(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=8000)
    chosen = parser.parse_args()
    Handler.model = graphopt_runtime.load(chosen.model)
    server = ThreadingHTTPServer(("127.0.0.1", chosen.port), Handler)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
