"""Programs of somebody else, and the process that prepares models for them, as small as they can be.

``serve PORT MODE``: a server of OpenAI's protocol that says the token ids of its prompt; ``prepare MODE``: tells of one
model called ``demo``, whose tokens are the characters' numbers.
"""

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JUDGED = {
    "example": "one",
    "messages": [{"role": "user", "content": "a"}],
    "max_new_tokens": 5,
    "sampling": {"temperature": 0.0},
    "text": "97",
    "same_prompt": True,
}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["prompt"]
        if self.headers["Authorization"] != f"Bearer {os.environ['ECHO_KEY']}":
            self.send_error(401)
            return
        if not body["stream"]:
            self._begin("application/json")
            self.wfile.write(b'{"choices": [{"text": "a"}]}')
            return
        self._begin("text/event-stream")
        while prompt == [ord(character) for character in "hang"]:
            time.sleep(1)
        for token_id in prompt[: body["max_tokens"]]:
            self._say({"choices": [{"text": f"{token_id} "}]})
            if prompt == [ord(character) for character in "slow"]:
                time.sleep(0.2)
        self._say({"choices": [{"text": "", "finish_reason": "stop"}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *arguments: Any) -> None:
        return

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def _say(self, document: Any) -> None:
        self.wfile.write(f"data: {json.dumps(document)}\n\n".encode())
        self.wfile.flush()


def serve(port: int, mode: str) -> None:
    if mode == "broken":
        sys.exit("out of memory")
    if mode == "stubborn":
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    if mode == "late":
        time.sleep(1.0)
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def tell(document: Any) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def prepare(mode: str) -> None:
    order = json.loads(sys.stdin.readline())
    if mode == "refused":
        tell({"kind": "refused", "message": "run:demo: not served: REJECT"})
        return
    tell({"kind": "stage", "said": "reading"})
    judged = {"judged": {**JUDGED}, "otherwise": {**JUDGED, "text": "98"}}.get(mode)
    served = {"name": "demo", "ref": "run:demo", "engine": order["engine"], "origin": "a test"}
    served["proof"] = {"verdict": "SHIP", "judged_at": "today" if judged else None}
    model = {"served": served, "judged": [judged] if judged else []}
    told = {"path": "p", "tokenizer": "t", "template": "c", "dtype": "float32", "context_tokens": 20, "stop_ids": [1]}
    tell({"kind": "prepared", **told, "models": [model]})
    for line in sys.stdin:
        asked = json.loads(line)
        prompt = asked["prompt"]
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        if text == "die":
            sys.exit(3)
        refused = {"error": "it quotes", "param": "prompt"} if text == "quote" else {}
        tell({"kind": "rendered", "id": asked["id"], "token_ids": [ord(one) for one in text], **refused})


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), sys.argv[3])
    else:
        prepare(sys.argv[2])
