"""Runs google-auth against a recording loopback server and writes how it asks for tokens: see record.sh."""
import base64
import http.server
import json
import os
import sys
import threading
import urllib.parse
from importlib.metadata import version

import google.auth.transport.requests
from google.oauth2 import service_account

OUT = sys.argv[1]
# All other headers say who sends (user-agent, x-goog-api-client) or how the connection works (accept and
# accept-encoding are those of the library below, and the answer is JSON in any case).
HEADERS = ["content-type"]
seen = []


def part(token, index):
    text = token.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


class Recorder(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
        assertion = form.pop("assertion")
        claims = part(assertion, 1)
        # The time is when this ran: what is kept is how long the assertion is good for.
        claims["lifetime"] = claims.pop("exp") - claims.pop("iat")
        headers = {name: self.headers[name] for name in HEADERS if self.headers[name] is not None}
        seen.append({"target": self.path, "headers": headers, "form": form, "header": part(assertion, 0), "claims": claims})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"access_token": "test-token", "expires_in": 3600}')

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
threading.Thread(target=server.serve_forever, daemon=True).start()
with open(os.path.join(OUT, "../../src/gapi/test_key.pem"), encoding="utf-8") as file:
    key = file.read()
account = {
    "client_email": "robot@project.iam.gserviceaccount.com",
    "private_key": key,
    "private_key_id": "k1",
    "token_uri": f"http://127.0.0.1:{server.server_port}/token",
}
with open(f"{OUT}/google_auth.cases.json", encoding="utf-8") as file:
    cases = json.load(file)
lines = []
for case in cases:
    credentials = service_account.Credentials.from_service_account_info(
        account, scopes=case["scopes"], subject=case["subject"]
    )
    seen.clear()
    credentials.refresh(google.auth.transport.requests.Request())
    assert len(seen) == 1, case
    lines.append(json.dumps({**case, "request": seen[0]}, separators=(",", ":"), sort_keys=True))
head = json.dumps({"client": "google-auth", "version": version("google-auth"), "comparedHeaders": HEADERS}, separators=(",", ":"))[:-1]
with open(f"{OUT}/google_auth.json", "w", encoding="utf-8") as file:
    file.write(head + ',"cases":[\n' + ",\n".join(lines) + "\n]}\n")
print(f"google-auth: {len(lines)} requests of google-auth {version('google-auth')}")
