"""Runs google-api-python-client against a recording loopback server and writes what it sends: see record.sh."""
import http.server
import io
import json
import os
import re
import sys
import threading
from importlib.metadata import version

import google.oauth2.credentials
import googleapiclient
from googleapiclient.discovery import build_from_document
from googleapiclient.http import MediaIoBaseUpload

OUT = sys.argv[1]
# All other headers say who sends (user-agent, x-goog-api-client) or how the connection works.
HEADERS = ["authorization", "content-type", "accept", "range"]
APIS = {
    "admin": "directory_v1",
    "gmail": "v1",
    "drive": "v3",
    "calendar": "v3",
    "sheets": "v4",
    "people": "v1",
}
DOCUMENTS = os.path.join(os.path.dirname(googleapiclient.__file__), "discovery_cache", "documents")
seen = []


class Recorder(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        headers = {name: self.headers[name] for name in HEADERS if self.headers[name] is not None}
        # The client makes the boundary of a multipart body up; here it is always the same.
        boundary = re.search('boundary="?([^";]+)', headers.get("content-type", ""))
        if boundary:
            headers["content-type"] = headers["content-type"].replace(boundary[1], "BOUNDARY")
            body = body.replace(boundary[1], "BOUNDARY")
        seen.append({"method": self.command, "target": self.path, "headers": headers, "body": body})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
threading.Thread(target=server.serve_forever, daemon=True).start()
root = f"http://127.0.0.1:{server.server_port}/"
credentials = google.oauth2.credentials.Credentials(token="test-token")

with open(f"{OUT}/google.cases.json", encoding="utf-8") as file:
    cases = json.load(file)
lines = []
for case in cases:
    api, *path = [part for part in case["method"].split(".") if part not in ("directory", "v3")]
    with open(os.path.join(DOCUMENTS, f"{api}.{APIS[api]}.json"), encoding="utf-8") as file:
        document = json.load(file)
    # Uploads go to the root of the document, whatever the endpoint of the client is.
    document["rootUrl"] = root
    document.pop("mtlsRootUrl", None)
    link = build_from_document(document, credentials=credentials)
    for name in path[:-1]:
        link = getattr(link, name)()
    args = dict(case["args"][0])
    if "requestBody" in args:
        args["body"] = args.pop("requestBody")
    method = path[-1]
    if "media" in args:
        media = args.pop("media")
        args["media_body"] = MediaIoBaseUpload(io.BytesIO(media["body"].encode()), media["mimeType"])
    if args.get("alt") == "media":
        args.pop("alt")
        method += "_media"
    seen.clear()
    getattr(link, method)(**args).execute()
    assert len(seen) == 1, case
    lines.append(json.dumps({**case, "request": seen[0]}, separators=(",", ":"), ensure_ascii=False))

client = "google-api-python-client"
head = json.dumps(
    {"client": client, "version": version(client), "comparedHeaders": HEADERS}, separators=(",", ":")
)[:-1]
with open(f"{OUT}/google.json", "w", encoding="utf-8") as file:
    file.write(head + ',"cases":[\n' + ",\n".join(lines) + "\n]}\n")
print(f"google: {len(lines)} requests of {client} {version(client)}")
