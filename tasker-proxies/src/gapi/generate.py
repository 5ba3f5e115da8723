"""Cuts discovery documents down to what requests need: see generate.sh."""
import json
import os
import sys

import googleapiclient

FOLDER = os.path.join(os.path.dirname(googleapiclient.__file__), "discovery_cache", "documents")
COMMON = ["admin.directory_v1", "gmail.v1", "drive.v3", "calendar.v3", "sheets.v4", "people.v1"]


def parameters(node):
    kept = {}
    for name, one in sorted(node.get("parameters", {}).items()):
        small = {"location": one["location"]}
        for member in ("repeated", "required"):
            if one.get(member):
                small[member] = True
        kept[name] = small
    return kept


def methods(node):
    kept = {}
    for one in node.get("methods", {}).values():
        small = {"id": one["id"], "httpMethod": one["httpMethod"], "path": one["path"]}
        if parameters(one):
            small["parameters"] = parameters(one)
        for member in ("scopes", "request", "response"):
            if one.get(member):
                small[member] = one[member]
        for member in ("supportsMediaUpload", "supportsMediaDownload"):
            if one.get(member):
                small[member] = True
        kept[one["id"]] = small
    for inner in node.get("resources", {}).values():
        kept.update(methods(inner))
    return kept


apis = []
for name in COMMON:
    with open(os.path.join(FOLDER, name + ".json"), encoding="utf-8") as file:
        document = json.load(file)
    apis.append(
        {
            "name": document["name"],
            "version": document["version"],
            "rootUrl": document["rootUrl"],
            "servicePath": document["servicePath"],
            "parameters": parameters(document),
            "methods": [one for _, one in sorted(methods(document).items())],
        }
    )

with open(sys.argv[1], "w", encoding="utf-8") as file:
    file.write('{"apis":[\n')
    for index, api in enumerate(apis):
        rows = api.pop("methods")
        head = json.dumps(api, separators=(",", ":"), sort_keys=True)[:-1]
        lines = ",\n".join(json.dumps(row, separators=(",", ":"), sort_keys=True) for row in rows)
        file.write(f'{head},"methods":[\n{lines}\n]}}' + (",\n" if index + 1 < len(apis) else "\n"))
        print(api["name"], api["version"], len(rows), "methods")
    file.write("]}\n")
